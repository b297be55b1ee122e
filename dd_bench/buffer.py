"""The expert buffer: snapshots of networks during their training, in one array that is mapped, not loaded.

`experts.safetensors` holds `parameters`, float32 or float16 `(experts, snapshots, p)`. Its header says of which
network and epochs, in which order the parameters lie in p, under which preprocessing and by which recipe.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dd_bench.steps import Diverged

FILE = "experts.safetensors"
Storage = Literal["float32", "float16"]
_DTYPES = {"float32": ("F32", torch.float32), "float16": ("F16", torch.float16)}


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
        return self.p * _DTYPES[self.dtype][1].itemsize


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
            with safe_open(self.path, framework="pt") as file:
                said = json.loads(file.metadata()["buffer"])
                shape = tuple(file.get_slice("parameters").get_shape())
            self.header = Header(
                said["experts"],
                tuple(said["epochs"]),
                tuple((name, tuple(s)) for name, s in said["order"]),
                said["dtype"],
                said["architecture"],
                (said["real"][0], said["real"][1]),
                said["preprocess"],
                said["recipe"],
            )
            if shape != (self.header.experts, len(self.header.epochs), self.header.p):
                raise ValueError(f"its array is {shape}, its header says otherwise")
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"the expert buffer {self.path} is damaged: {error}") from error

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
        with safe_open(self.path, framework="pt") as file:
            row: Tensor = file.get_slice("parameters")[expert, self.header.epochs.index(epoch)]
        return row.flatten().to(device=device, dtype=torch.float32)


def create(folder: Path, header: Header) -> None:
    """Lays out the file of a buffer, its numbers not yet written, unless it is there."""
    path = folder / FILE
    text = _header_text(header)
    if path.exists():
        with path.open("rb") as file:
            if file.read(len(text)) == text:
                return
    with path.open("wb") as file:
        file.write(text)
        file.truncate(len(text) + header.experts * len(header.epochs) * header.size)


def write(folder: Path, header: Header, expert: int, epoch: int, parameters: Tensor) -> None:
    """Stores one snapshot, parameters `(p,)`. Several processes may write different ones at a time.

    Raises:
        Diverged: a value is not finite, or too large for the stored type.
        OSError: the disk is full.
    """
    values = parameters.detach().cpu().to(_DTYPES[header.dtype][1])
    if not bool(torch.isfinite(values).all()):
        raise Diverged(
            f"expert {expert} is not finite as {header.dtype} after epoch {epoch}. Use a smaller "
            "method.experts.recipe.lr, or method.experts.dtype=float32"
        )
    row = expert * len(header.epochs) + header.epochs.index(epoch)
    with (folder / FILE).open("r+b") as file:  # not mapped: on a full disk that would be a signal, no error
        file.seek(len(_header_text(header)) + row * header.size)
        file.write(values.numpy().tobytes())


def _header_text(header: Header) -> bytes:
    """The head of a safetensors file: the length of its JSON, and the JSON, padded to 8 bytes.

    The library writes a file only from an array that is complete and in memory; this one grows an epoch at a time.
    """
    shape = [header.experts, len(header.epochs), header.p]
    entry = {
        "dtype": _DTYPES[header.dtype][0],
        "shape": shape,
        "data_offsets": [0, shape[0] * shape[1] * header.size],
    }
    said = json.dumps(header.__dict__, sort_keys=True)
    text = json.dumps({"__metadata__": {"buffer": said}, "parameters": entry}, sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
