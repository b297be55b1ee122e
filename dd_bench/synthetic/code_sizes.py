"""Sizes of the codes of a quantised set after lossless compression: entropy, PNG, WebP and Zstandard.

They do not include parameters and labels, which are stored as they are. The files are not part of the set.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

_COUNT_BITS = 32
"""Bits of one number of the histogram, which a decoder of an entropy code needs."""
_WEBP_SIDE = 16_383
"""Maximum width and height of a WebP file in pixels."""
_MODES = {1: "L", 3: "RGB"}


def code_sizes(codes: Tensor, bits: int) -> dict[str, int]:
    """Return the sizes of codes `(n, c, h, w)` of `bits` bits, uint8.

    Returns:
        "entropy bits": order-0 entropy of all codes, and 32 bits for the count of each of the 2^bits codes.
        "zstd bytes": the codes of one channel after the other, one byte each, by Zstandard at level 19. Its entropy
        coder removes the unused bits of these bytes.
        "PNG bytes" and "WebP bytes": all images in one grid, lossless. Only for one or three channels; WebP only if no
        side of the grid is above 16,383 pixels.
    """
    import zstandard

    counts = torch.bincount(codes.flatten(), minlength=2**bits).double()
    shares = counts[counts > 0] / codes.numel()
    entropy = -float((shares * shares.log2()).sum()) * codes.numel()
    planes = codes.transpose(0, 1).contiguous().numpy().tobytes()
    return {
        "entropy bits": math.ceil(entropy) + _COUNT_BITS * 2**bits,
        "zstd bytes": len(zstandard.ZstdCompressor(level=19).compress(planes)),
        **_picture_sizes(codes, bits),
    }


def _picture_sizes(codes: Tensor, bits: int) -> dict[str, int]:
    from PIL import Image

    n, c, h, w = codes.shape
    if c not in _MODES:
        return {}
    across = max(1, math.isqrt(n * h // w))
    down = math.ceil(n / across)
    grid = np.zeros((down * across, c, h, w), np.uint8)
    grid[:n] = codes.numpy()
    pixels = grid.reshape(down, across, c, h, w).transpose(0, 3, 1, 4, 2).reshape(down * h, across * w, c)
    picture = Image.fromarray(pixels.squeeze(2) if c == 1 else pixels, _MODES[c])
    depth = {"bits": bits} if c == 1 and bits in (1, 2, 4) else {}  # other depths are stored as 8 bits
    sizes = {"PNG bytes": _saved(_palette(picture) if depth else picture, "PNG", optimize=True, **depth)}
    if max(picture.size) <= _WEBP_SIDE:
        sizes["WebP bytes"] = _saved(picture, "WEBP", lossless=True, quality=100, method=4)
    return sizes


def _palette(picture: Image.Image) -> Image.Image:
    """Return a grey picture as a picture with a palette, which PNG stores with fewer than 8 bits per pixel."""
    indexed = picture.copy()
    indexed.putpalette([level for i in range(256) for level in (i, i, i)])
    return indexed


def _saved(picture: Image.Image, kind: str, **options: Any) -> int:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.tell()
