"""Safetensors files that are written row by row and memory-mapped, for expert buffers, labels and images.

The safetensors library writes only complete arrays that are in memory, and cannot map files larger than the memory.
The files written here are valid safetensors files.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

DTYPES = {"F32": np.float32, "F16": np.float16, "I32": np.int32, "I16": np.int16, "U8": np.uint8}


@dataclass(frozen=True)
class Layout:
    """Names, dtypes and shapes of the arrays in a file, and its metadata.

    Attributes:
        kind: key of the metadata in the file's header.
        metadata: JSON-serialisable metadata.
        arrays: maps a name to its safetensors dtype, e.g. "F32", and its shape.
    """

    kind: str
    metadata: dict[str, Any]
    arrays: Mapping[str, tuple[str, tuple[int, ...]]]

    def entries(self) -> dict[str, Any]:
        """Return the safetensors header entries of the arrays: dtype, shape and byte offsets."""
        entries, end = {}, 0
        for name, (dtype, shape) in sorted(self.arrays.items()):
            begin, end = end, end + math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
            entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        return entries

    @property
    def size(self) -> int:
        """Total size of the arrays in bytes."""
        return max((e["data_offsets"][1] for e in self.entries().values()), default=0)

    def header(self) -> bytes:
        """Return the header of the file: the length of its JSON, and the JSON padded to a multiple of 8 bytes."""
        metadata = json.dumps(self.metadata, sort_keys=True)
        text = json.dumps({"__metadata__": {self.kind: metadata}, **self.entries()}, sort_keys=True).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


def create(path: Path, layout: Layout) -> bool:
    """Create the file with arrays of zeros and return False. A file with another layout is overwritten.

    If a file with this layout already exists, leave it unchanged and return True.
    """
    header = layout.header()
    size = len(header) + layout.size
    if path.exists() and path.stat().st_size == size:
        with path.open("rb") as file:
            if file.read(len(header)) == header:
                return True
    with path.open("wb") as file:
        file.write(header)
        file.truncate(size)
    return False


def write(path: Path, layout: Layout, name: str, row: int, values: np.ndarray[Any, Any]) -> None:
    """Write `values` to row `row` of an array and flush it to disk. All rows have the size of `values`.

    Raises:
        OSError: the disk is full.
    """
    data = np.ascontiguousarray(values, DTYPES[layout.arrays[name][0]])
    _write(path, layout, name, row * data.nbytes, data)


def write_rows(path: Path, layout: Layout, name: str, first: int, values: np.ndarray[Any, Any]) -> None:
    """Write `values (m, ...)` to the rows `first` to `first + m - 1` of an array `(n, ...)` and flush them to disk.

    Raises:
        OSError: the disk is full.
    """
    dtype, shape = layout.arrays[name]
    data = np.ascontiguousarray(values, DTYPES[dtype])
    _write(path, layout, name, first * math.prod(shape[1:]) * data.itemsize, data)


def _write(path: Path, layout: Layout, name: str, offset: int, data: np.ndarray[Any, Any]) -> None:
    """Write data at a byte offset in an array."""
    begin = len(layout.header()) + layout.entries()[name]["data_offsets"][0]
    with path.open(
        "r+b"
    ) as file:  # not a memory map, which raises a signal instead of OSError on a full disk
        file.seek(begin + offset)
        file.write(data.tobytes())
        file.flush()
        os.fsync(file.fileno())  # the row is on disk before the caller marks it as complete


def read_header(path: Path, kind: str) -> tuple[Any, dict[str, Any], int]:
    """Return the metadata, the header entries of the arrays, and the byte offset of the first array.

    Raises:
        ValueError, KeyError, TypeError: the file does not have this format.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length < 2**27:
            raise ValueError(f"the header must have 1 to {2**27 - 1} bytes, got {length}")
        entries = json.loads(file.read(length))
    metadata = json.loads(entries.pop("__metadata__")[kind])
    return metadata, entries, 8 + length


def check_size(path: Path, layout: Layout, begin: int) -> None:
    """Raise ValueError unless the file has the size given by its layout."""
    size, expected = path.stat().st_size, begin + layout.size
    if size != expected:
        raise ValueError(f"the file must have {expected} bytes, got {size}")


def array(
    path: Path, layout: Layout, name: str, begin: int, mode: Literal["r", "c"] = "r"
) -> np.memmap[Any, Any]:
    """Memory-map one array. The array can be larger than the memory.

    The file never changes: with `mode` "r" the array is read-only, with "c" written pages are copied (copy-on-write).
    """
    dtype, shape = layout.arrays[name]
    return np.memmap(path, DTYPES[dtype], mode, begin + layout.entries()[name]["data_offsets"][0], shape)
