"""Integers of a few bits, packed without gaps: n codes of b bits take ceil(n * b / 8) bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def packed_size(count: int, bits: int) -> int:
    """Return the bytes of `count` codes of `bits` bits."""
    return -(-count * bits // 8)


def bits_for(count: int) -> int:
    """Return the bits of one of `count` different codes, at least 1."""
    return max(1, (count - 1).bit_length())


def pack_bits(codes: Array, bits: int) -> Array:
    """Pack codes `(..., n)` in [0, 2^bits), most significant bit first, into uint8 `(..., packed_size(n, bits))`.

    Each row of n codes begins at a new byte.
    """
    shifts = np.arange(bits - 1, -1, -1)
    each = (codes[..., None].astype(np.int64) >> shifts & 1).astype(np.uint8)
    return np.packbits(each.reshape(*codes.shape[:-1], -1), axis=-1)


def unpack_bits(packed: Array, count: int, bits: int) -> Array:
    """Return the codes `(..., count)`, int64, that `pack_bits` has packed into `(..., packed_size(count, bits))`."""
    each = np.unpackbits(packed, axis=-1, count=count * bits).reshape(*packed.shape[:-1], count, bits)
    return each @ (1 << np.arange(bits - 1, -1, -1))
