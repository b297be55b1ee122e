"""The expert buffer: snapshots of networks during their training, in one array that is mapped, not loaded.

`experts.safetensors` holds `parameters`, float32 or float16 `(experts, snapshots, p)`. Its header says of which
network and epochs, in which order the parameters lie in p, under which preprocessing and by which recipe.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dd_bench.steps import Diverged

FILE = "experts.safetensors"
Storage = Literal["float32", "float16"]
_DTYPES = {"float32": ("F32", np.float32), "float16": ("F16", np.float16)}


@dataclass(frozen=True)
class Header:
    """What the numbers of a buffer are.

    Attributes:
        architecture: `Architecture.describe()`.
        order: name and shape of each parameter, in the order of p.
        epochs: the epochs whose snapshots are stored, ascending; 0 is the initialisation.
        real: digest of the dataset, and its number of training images.
        preprocess: digest of the preprocessing.
        recipe: how the experts were trained.
    """

    experts: int
    epochs: tuple[int, ...]
    order: tuple[tuple[str, tuple[int, ...]], ...]
    dtype: Storage
    architecture: dict[str, Any]
    real: tuple[str, int]
    preprocess: str
    recipe: dict[str, Any]

    @property
    def p(self) -> int:
        """Number of parameters."""
        return sum(torch.Size(shape).numel() for _, shape in self.order)

    @property
    def size(self) -> int:
        """Bytes of one snapshot."""
        return self.p * np.dtype(_DTYPES[self.dtype][1]).itemsize


class Buffer:
    """A buffer on the disk, read a snapshot at a time.

    Attributes:
        header: what the numbers are.
    """

    def __init__(self, folder: Path):
        """Opens the buffer in `folder`.

        Raises:
            ValueError: it is missing, or damaged.
        """
        self.path = folder / FILE
        if not self.path.is_file():
            raise ValueError(f"{folder} is no expert buffer: it has no {FILE}")
        try:
            self.header, offset = _read_header(self.path)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"the expert buffer {self.path} is damaged: {error}") from error
        shape = (self.header.experts, len(self.header.epochs), self.header.p)
        # shared with the page cache: a buffer may be larger than the memory, which `safe_open` refuses
        self._array = np.memmap(self.path, _DTYPES[self.header.dtype][1], "r", offset, shape)

    def __len__(self) -> int:
        return self.header.experts

    def snapshot(self, expert: int, epoch: int, device: torch.device) -> Tensor:
        """Returns the parameters of an expert after `epoch` epochs, float32 `(p,)`.

        Raises:
            ValueError: that epoch is not stored.
        """
        if epoch not in self.header.epochs:
            raise ValueError(
                f"epoch {epoch} is not in the expert buffer, which holds {list(self.header.epochs)} ({self.path})"
            )
        row = np.array(self._array[expert, self.header.epochs.index(epoch)], dtype=np.float32)  # a copy
        return torch.from_numpy(row).to(device)


def create(folder: Path, header: Header) -> bool:
    """Lays out the file of a buffer, its numbers not yet written, unless it is there; returns whether it was there."""
    path, text = folder / FILE, _header_text(header)
    size = len(text) + _entry(header)["data_offsets"][1]
    if path.exists() and path.stat().st_size == size:
        with path.open("rb") as file:
            if file.read(len(text)) == text:
                return True
    with path.open("wb") as file:
        file.write(text)
        file.truncate(size)
    return False


def write(folder: Path, header: Header, expert: int, epoch: int, parameters: Tensor) -> None:
    """Stores one snapshot, parameters `(p,)`, for good. Several processes may write different ones at a time.

    Raises:
        ValueError: there are not p parameters.
        Diverged: a value is not finite, or too large for the stored type.
        OSError: the disk is full.
    """
    if parameters.shape != (header.p,):
        raise ValueError(f"a snapshot is ({header.p},), got {tuple(parameters.shape)}")
    with np.errstate(over="ignore"):  # what does not fit is infinite, and refused
        values = parameters.detach().cpu().numpy().astype(_DTYPES[header.dtype][1])
    if not np.isfinite(values).all():
        raise Diverged(
            f"expert {expert} is not finite as {header.dtype} after epoch {epoch}. Use a smaller "
            "method.experts.recipe.lr, or method.experts.dtype=float32"
        )
    row = expert * len(header.epochs) + header.epochs.index(epoch)
    with (folder / FILE).open("r+b") as file:  # not mapped: on a full disk that would be a signal, no error
        file.seek(len(_header_text(header)) + row * header.size)
        file.write(values.tobytes())
        file.flush()
        os.fsync(file.fileno())  # before the checkpoint says that it is there


def _read_header(path: Path) -> tuple[Header, int]:
    """Returns the header, and where the array begins; raises ValueError unless the file is just that long."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length < 2**27:
            raise ValueError(f"its header of {length} bytes is none")
        text = json.loads(file.read(length))
    said, entry = json.loads(text["__metadata__"]["buffer"]), text["parameters"]
    order = tuple((str(name), tuple(shape)) for name, shape in said["order"])
    header = Header(
        said["experts"],
        tuple(said["epochs"]),
        order,
        said["dtype"],
        said["architecture"],
        (said["real"][0], said["real"][1]),
        said["preprocess"],
        said["recipe"],
    )
    counts = [header.experts, *header.epochs, *(side for _, shape in order for side in shape)]
    if any(type(count) is not int or count < 0 for count in counts):
        raise ValueError(f"experts, epochs and shapes are whole numbers, not {counts}")
    if list(header.epochs) != sorted(set(header.epochs)):
        raise ValueError(f"epochs {list(header.epochs)} do not ascend")
    if header.dtype not in _DTYPES:
        raise ValueError(f"dtype {header.dtype!r}; a buffer is one of {sorted(_DTYPES)}")
    if entry != _entry(header):
        raise ValueError(f"its array is {tuple(entry['shape'])}, {entry}; its header says {_entry(header)}")
    size, wanted = path.stat().st_size, 8 + length + _entry(header)["data_offsets"][1]
    if size != wanted:
        raise ValueError(f"it is {size} bytes long, not {wanted}")
    return header, 8 + length


def _entry(header: Header) -> dict[str, Any]:
    """What a safetensors file says of its one array."""
    shape = [header.experts, len(header.epochs), header.p]
    return {
        "dtype": _DTYPES[header.dtype][0],
        "shape": shape,
        "data_offsets": [0, shape[0] * shape[1] * header.size],
    }


def _header_text(header: Header) -> bytes:
    """The head of a safetensors file: the length of its JSON, and the JSON, padded to 8 bytes.

    By hand, since the library writes only an array that is complete and in memory; this one grows an epoch at a time.
    """
    said = json.dumps(header.__dict__, sort_keys=True)
    text = json.dumps(
        {"__metadata__": {"buffer": said}, "parameters": _entry(header)}, sort_keys=True
    ).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
