"""Bilinear sampling of images at given positions, with a deterministic gradient on every device.

On CUDA, the backward pass of `grid_sample` adds with atomic operations, so its rounding differs from run to run, and it
raises an error under `torch.use_deterministic_algorithms(True)`. `gather_bilinear` computes the same values by
indexing. Its backward pass is `index_put_` with `accumulate=True`, which sorts the indices on CUDA and is therefore
deterministic.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Padding = Literal["zeros", "border"]


def sample_bilinear(x: Tensor, grid: Tensor, *, padding: Padding = "zeros", align_corners: bool) -> Tensor:
    """Sample images `(n, c, h, w)` at normalised positions `grid (n, h', w', 2)`, as `F.grid_sample` does.

    The positions are (x, y) in [-1, 1]. If deterministic algorithms are requested on CUDA, the result is computed by
    `gather_bilinear`, which is slower and needs about five times the memory.
    """
    if x.device.type == "cuda" and torch.are_deterministic_algorithms_enabled():
        return gather_bilinear(x, grid, padding=padding, align_corners=align_corners)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode=padding, align_corners=align_corners)


def gather_bilinear(x: Tensor, grid: Tensor, *, padding: Padding = "zeros", align_corners: bool) -> Tensor:
    """Return what `sample_bilinear` returns, by indexing; differentiable in `x` any number of times, not in `grid`."""
    n, c, h, w = x.shape
    cols, col_weight = _neighbours(grid[..., 0], w, padding, align_corners)  # (n, 2, h', w')
    rows, row_weight = _neighbours(grid[..., 1], h, padding, align_corners)
    index = (rows[:, :, None] * w + cols[:, None]).flatten(1)  # (n, 2 2 h' w')
    weight = (row_weight[:, :, None] * col_weight[:, None]).flatten(1, 2)  # (n, 4, h', w')
    image = torch.arange(n, device=x.device)[:, None]
    values = x.flatten(2).transpose(1, 2)[image, index].view(*weight.shape, c)  # (n, 4, h', w', c)
    return (values * weight[..., None]).sum(1).permute(0, 3, 1, 2)


def _neighbours(position: Tensor, size: int, padding: Padding, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Return the two pixels next to each normalised position `(n, h', w')` of an axis, and their weights.

    Both are `(n, 2, h', w')`. Indices are clamped to the axis, and pixels outside it have weight zero.
    """
    position = position.detach() + 1
    position = position / 2 * (size - 1) if align_corners else (position * size - 1) / 2
    if padding == "border":
        position = position.clamp(0, size - 1)
    low = position.floor()
    pixel = torch.stack([low, low + 1], 1)
    weight = 1 - (position[:, None] - pixel).abs()
    outside = (pixel < 0) | (pixel >= size)
    return pixel.clamp(0, size - 1).long(), weight.masked_fill(outside, 0.0)
