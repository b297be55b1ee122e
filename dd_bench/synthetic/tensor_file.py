"""Read the tensors of an untrusted set from a safetensors file.

The header must be exactly what the safetensors library writes for its tensors. The library's own reader also accepts
metadata, padding and repeated names, and copies all data. Here the tensors are views of the one buffer that was hashed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dd_bench.runtime import untrusted
from dd_bench.synthetic.card import MAX_HEADER

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {"F32": "float32", "F16": "float16", "I64": "int64", "I32": "int32", "I16": "int16", "U8": "uint8"}
"""Dtypes of stored tensors: their names in safetensors and in torch."""
_SIZES = {"F32": 4, "F16": 2, "I64": 8, "I32": 4, "I16": 2, "U8": 1}
_MAX_DIMENSIONS = 8


class TensorEntry(NamedTuple):
    """A tensor in a file. `begin` and `end` are byte offsets relative to the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path, limit: int) -> dict[str, TensorEntry]:
    """Return the tensors that a file lists, without reading their values. Does not import torch.

    Raises:
        OSError, ValueError: the file is not a regular file of at most `limit` bytes, or its header is not valid.
    """
    with untrusted.open_regular(path, limit) as file:
        start = file.read(8)
        return _parse_header(start + file.read(min(int.from_bytes(start, "little"), MAX_HEADER + 1)))[0]


def parse_tensors(content: bytearray, stated: Mapping[str, int]) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file as views of its content.

    Args:
        content: the file.
        stated: the bytes of each tensor according to the card.

    Raises:
        ValueError: the header is not valid, or the file does not contain exactly the stated tensors.
    """
    import torch

    entries, start = _parse_header(content[: 8 + MAX_HEADER + 1])
    if missing := sorted(stated.keys() - entries.keys()):
        raise ValueError(f"the file must contain the tensor {missing[0]!r}, got only {sorted(entries)}")
    if others := sorted(entries.keys() - stated.keys()):
        raise ValueError(f"tensor {others[0]!r} is not in the stored_bytes of the card, {sorted(stated)}")
    sizes = {name: entry.end - entry.begin for name, entry in sorted(entries.items())}
    if sizes != stated:
        raise ValueError(f"stored_bytes must be {sizes}, got {dict(stated)} in the card")
    total = start + sum(sizes.values())
    if len(content) != total:
        raise ValueError(f"the file must have {total:,} bytes, got {len(content):,}")
    return {
        name: torch.frombuffer(
            content,
            dtype=getattr(torch, DTYPES[entry.dtype]),
            count=math.prod(entry.shape),
            offset=start + entry.begin,
        ).view(entry.shape)
        for name, entry in entries.items()
    }


def _parse_header(content: bytes | bytearray) -> tuple[dict[str, TensorEntry], int]:
    """Return the tensors in a header, and the byte offset of the first tensor in the file."""
    length = int.from_bytes(content[:8], "little")
    if not 0 < length <= MAX_HEADER or len(content) < 8 + length:
        raise ValueError(f"the header of the file must be complete and have at most {MAX_HEADER:,} bytes")
    text = bytes(content[8 : 8 + length])
    listed = untrusted.parse_json(text)
    if not isinstance(listed, dict):
        raise ValueError("the header of the file must be a JSON object")
    entries: dict[str, TensorEntry] = {}
    position = 0
    for name, values in listed.items():
        entries[name] = _entry(name, values, position)
        position = entries[name].end
    expected = json.dumps(listed, separators=(",", ":"), ensure_ascii=False).encode()
    if text != expected + b" " * (-len(expected) % 8):
        raise ValueError(
            "the header of the file must be as safetensors writes it, without spaces or other keys"
        )
    return entries, 8 + length


def _entry(name: str, values: Any, position: int) -> TensorEntry:
    keys = ["dtype", "shape", "data_offsets"]
    if not isinstance(values, dict) or list(values) != keys:
        raise ValueError(
            f"tensor {name[:100]!r} must have the keys {', '.join(keys)}, got {str(values)[:200]}"
        )
    dtype, shape, offsets = (values[key] for key in keys)
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(
            f"tensor {name[:100]!r} must have one of the dtypes {', '.join(DTYPES)}, got {str(dtype)[:100]}"
        )
    if (
        not isinstance(shape, list)
        or len(shape) > _MAX_DIMENSIONS
        or any(type(s) is not int or s < 1 for s in shape)
    ):
        raise ValueError(
            f"tensor {name[:100]!r} must have at most {_MAX_DIMENSIONS} dimensions, each >= 1, got {str(shape)[:200]}"
        )
    end = position + math.prod(shape) * _SIZES[dtype]
    if offsets != [position, end] or any(type(offset) is not int for offset in offsets):
        raise ValueError(
            f"tensor {name[:100]!r} must have data_offsets [{position}, {end}], got {str(offsets)[:100]}"
        )
    return TensorEntry(dtype, tuple(shape), position, end)
