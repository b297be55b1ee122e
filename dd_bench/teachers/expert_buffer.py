"""The expert buffer: snapshots of networks during their training, in one memory-mapped array.

`experts.safetensors` contains `parameters`, float32 or float16 `(experts, snapshots, p)`. Its header contains the
network, the stored epochs, the order of the parameters in a snapshot, the preprocessing and the recipe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dd_bench.runtime import mmap_file
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.runtime.transfer import to_device

FILE = "experts.safetensors"
Storage = Literal["float32", "float16"]
_DTYPES = {"float32": ("F32", np.float32), "float16": ("F16", np.float16)}


@dataclass(frozen=True)
class Header:
    """The metadata of a buffer.

    Attributes:
        architecture: `Architecture.describe()`.
        experts: number of experts.
        epochs: epochs with a stored snapshot, ascending; 0 is the initialisation.
        order: name and shape of each parameter, in the order of a snapshot `(p,)`.
        dtype: data type of the stored parameters.
        real: digest of the dataset, and its number of training images.
        preprocess: digest of the preprocessing.
        recipe: how the experts were trained.
        preprocessing: configuration of the preprocessing, for error messages; empty in buffers of older versions.
    """

    experts: int
    epochs: tuple[int, ...]
    order: tuple[tuple[str, tuple[int, ...]], ...]
    dtype: Storage
    architecture: dict[str, Any]
    real: tuple[str, int]
    preprocess: str
    recipe: dict[str, Any]
    preprocessing: dict[str, Any] = field(default_factory=dict)

    @property
    def p(self) -> int:
        """Number of parameters of a network."""
        return sum(torch.Size(shape).numel() for _, shape in self.order)

    @property
    def size(self) -> int:
        """Size of one snapshot in bytes."""
        return self.p * np.dtype(_DTYPES[self.dtype][1]).itemsize

    @property
    def layout(self) -> mmap_file.Layout:
        """Layout of the file."""
        shape = (self.experts, len(self.epochs), self.p)
        return mmap_file.Layout("buffer", self.__dict__, {"parameters": (_DTYPES[self.dtype][0], shape)})


class ExpertBuffer:
    """An expert buffer on disk; snapshots are read one at a time.

    Attributes:
        header: metadata of the buffer.
    """

    def __init__(self, folder: Path):
        """Open the buffer in `folder`.

        Raises:
            ValueError: the buffer is missing or damaged.
        """
        self.path = folder / FILE
        if not self.path.is_file():
            raise ValueError(f"{folder} is not an expert buffer: {FILE} is missing")
        try:
            self.header, offset = _read_header(self.path)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"the expert buffer {self.path} is damaged: {error}") from error
        self._array = mmap_file.array(self.path, self.header.layout, "parameters", offset)

    def __len__(self) -> int:
        return self.header.experts

    def snapshot(self, expert: int, epoch: int, device: torch.device) -> Tensor:
        """Return the parameters of an expert after `epoch` epochs, float32 `(p,)`.

        Raises:
            ValueError: the epoch is not stored.
        """
        if epoch not in self.header.epochs:
            raise ValueError(
                f"epoch must be one of the epochs stored in {self.path}, {list(self.header.epochs)}, got {epoch}"
            )
        row = np.array(self._array[expert, self.header.epochs.index(epoch)], dtype=np.float32)  # a copy
        return to_device(torch.from_numpy(row), device)


def create(folder: Path, header: Header) -> bool:
    """Create the file of a buffer, filled with zeros, and return False.

    If a file with this header already exists, leave it unchanged and return True.
    """
    return mmap_file.create(folder / FILE, header.layout)


def write(folder: Path, header: Header, expert: int, epoch: int, parameters: Tensor) -> None:
    """Write one snapshot, parameters `(p,)`, and flush it to disk. Several processes can write different snapshots.

    Raises:
        ValueError: the shape of `parameters` is not `(p,)`.
        Diverged: a value is not finite, or is too large for the stored type.
        OSError: the file could not be written.
    """
    if parameters.shape != (header.p,):
        raise ValueError(f"a snapshot must have shape ({header.p},), got {tuple(parameters.shape)}")
    with np.errstate(over="ignore"):  # values that are too large become infinite and raise an error below
        values = parameters.detach().cpu().numpy().astype(_DTYPES[header.dtype][1])
    if not np.isfinite(values).all():
        raise Diverged(
            f"the parameters of expert {expert} are not finite as {header.dtype} after epoch {epoch}. Use a smaller "
            "method.experts.recipe.lr, or method.experts.dtype=float32"
        )
    row = expert * len(header.epochs) + header.epochs.index(epoch)
    mmap_file.write(folder / FILE, header.layout, "parameters", row, values)


def _read_header(path: Path) -> tuple[Header, int]:
    """Return the header, and the offset of the array in bytes.

    Raises:
        ValueError: the header is not valid, or the file does not have the size given by it.
    """
    metadata, entries, begin = mmap_file.read_header(path, "buffer")
    entry = entries["parameters"]
    order = tuple((str(name), tuple(shape)) for name, shape in metadata["order"])
    header = Header(
        metadata["experts"],
        tuple(metadata["epochs"]),
        order,
        metadata["dtype"],
        metadata["architecture"],
        (metadata["real"][0], metadata["real"][1]),
        metadata["preprocess"],
        metadata["recipe"],
        metadata.get("preprocessing", {}),
    )
    counts = [header.experts, *header.epochs, *(side for _, shape in order for side in shape)]
    if any(type(count) is not int or count < 0 for count in counts):
        raise ValueError(f"experts, epochs and shapes must be integers >= 0, got {counts}")
    if list(header.epochs) != sorted(set(header.epochs)):
        raise ValueError(f"epochs must be ascending, got {list(header.epochs)}")
    if header.dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {sorted(_DTYPES)}, got {header.dtype!r}")
    expected = header.layout.entries()["parameters"]
    if entry != expected:
        raise ValueError(f"the array must be {expected} as in the metadata, got {entry}")
    mmap_file.check_size(path, header.layout, begin)
    return header, begin
