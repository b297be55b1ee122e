"""Multi-formation decoding (IDC, Kim et al., ICML 2022): one stored image is decoded to factor^2 training images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def decode(images: Tensor, factor: int) -> Tensor:
    """Cut images `(n, c, h, w)` into factor x factor tiles and upsample each tile bilinearly to the full size.

    Pixels are in [0, 1]. If `factor` does not divide the height or width, the images are first padded with 0.5 at the
    bottom or right. Differentiable.

    Returns:
        `(n * factor**2, c, h, w)`. The tiles of one image are consecutive.
    """
    if factor == 1:
        return images
    h, w = images.shape[2:]
    images = F.pad(images, (0, -w % factor, 0, -h % factor), value=0.5)
    return F.interpolate(cut(images, factor), size=(h, w), mode="bilinear", align_corners=False)


def cut(images: Tensor, factor: int) -> Tensor:
    """Cut images `(n, c, h, w)` into factor x factor tiles, `(n * factor**2, c, h / factor, w / factor)`.

    The tiles of one image are consecutive, in row-major order.
    """
    if factor == 1:
        return images
    n, c, h, w = images.shape
    rows, cols = h // factor, w // factor
    tiles = images.view(n, c, factor, rows, factor, cols).permute(0, 2, 4, 1, 3, 5)
    return tiles.reshape(-1, c, rows, cols)


def tile(images: Tensor, factor: int) -> Tensor:
    """Tile each factor^2 consecutive images of `(n * factor**2, c, h, w)` into one image, the inverse of `cut`."""
    if factor == 1:
        return images
    _, c, h, w = images.shape
    grid = images.view(-1, factor, factor, c, h, w).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(-1, c, factor * h, factor * w)


def encode(images: Tensor, factor: int, resize: str = "antialiased") -> Tensor:
    """Downsample each factor^2 consecutive images of `(n * factor**2, c, h, w)` and tile them into `(n, c, h, w)`.

    `resize` is the interpolation: `antialiased` (bilinear) or `nearest`.
    """
    if factor == 1:
        return images
    h, w = images.shape[2:]
    size = (-(-h // factor), -(-w // factor))
    if resize == "nearest":
        small = F.interpolate(images, size=size, mode="nearest")
    else:
        small = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
    return torch.clone(tile(small, factor)[:, :, :h, :w])
