"""Safetensors files that grow in place and are mapped, not loaded: expert buffers, stored labels.

Laid out by hand, since the safetensors library writes only arrays that are complete and in memory, and refuses to
map what is larger than the memory. What comes out is a safetensors file as any other.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {"F32": np.float32, "F16": np.float16, "I32": np.int32, "I16": np.int16}


@dataclass(frozen=True)
class Layout:
    """Arrays by name, and what is said of them.

    Attributes:
        kind: under which key the file says it.
        said: JSON.
        arrays: dtype as safetensors names it, and shape.
    """

    kind: str
    said: dict[str, Any]
    arrays: Mapping[str, tuple[str, tuple[int, ...]]]

    def entries(self) -> dict[str, Any]:
        """Returns what a safetensors file says of its arrays."""
        entries, end = {}, 0
        for name, (dtype, shape) in sorted(self.arrays.items()):
            begin, end = end, end + math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
            entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        return entries

    @property
    def size(self) -> int:
        """Bytes of all arrays."""
        return max((e["data_offsets"][1] for e in self.entries().values()), default=0)

    def header(self) -> bytes:
        """Returns the head of the file: the length of its JSON, and the JSON, padded to 8 bytes."""
        said = json.dumps(self.said, sort_keys=True)
        text = json.dumps({"__metadata__": {self.kind: said}, **self.entries()}, sort_keys=True).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


def create(path: Path, layout: Layout) -> bool:
    """Lays out the file, its numbers not yet written, unless it is there; returns whether it was there."""
    head = layout.header()
    size = len(head) + layout.size
    if path.exists() and path.stat().st_size == size:
        with path.open("rb") as file:
            if file.read(len(head)) == head:
                return True
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    return False


def write(path: Path, layout: Layout, name: str, row: int, values: np.ndarray[Any, Any]) -> None:
    """Stores `values` as row number `row` of an array, rows counted in units of `values`, for good.

    Raises:
        OSError: the disk is full.
    """
    dtype, _ = layout.arrays[name]
    begin = len(layout.header()) + layout.entries()[name]["data_offsets"][0]
    data = np.ascontiguousarray(values, DTYPES[dtype])
    with path.open("r+b") as file:  # not mapped: on a full disk that would be a signal, no error
        file.seek(begin + row * data.nbytes)
        file.write(data.tobytes())
        file.flush()
        os.fsync(file.fileno())  # before anybody says that it is there


def read_header(path: Path, kind: str) -> tuple[Any, dict[str, Any], int]:
    """Returns what is said, the entries of the arrays, and where they begin.

    Raises:
        ValueError, KeyError, TypeError: it is no such file.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length < 2**27:
            raise ValueError(f"its header of {length} bytes is none")
        text = json.loads(file.read(length))
    said = json.loads(text.pop("__metadata__")[kind])
    return said, text, 8 + length


def check_size(path: Path, layout: Layout, begin: int) -> None:
    """Raises ValueError unless the file is as long as its head says."""
    size, wanted = path.stat().st_size, begin + layout.size
    if size != wanted:
        raise ValueError(f"it is {size} bytes long, not {wanted}")


def array(path: Path, layout: Layout, name: str, begin: int) -> np.memmap[Any, Any]:
    """Maps one array; shared with the page cache, so that it may be larger than the memory."""
    dtype, shape = layout.arrays[name]
    return np.memmap(path, DTYPES[dtype], "r", begin + layout.entries()[name]["data_offsets"][0], shape)
