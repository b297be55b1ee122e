"""Views of mosaics: one cell of an image, enlarged to the whole image, as in CIM (ECCV 2026)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from dd_bench.runtime.seeding import generator


@lru_cache(maxsize=2)
def cell_numbers(n: int, seed: int, epoch: int) -> Tensor:
    """Return the uniform random numbers of the cells of an epoch, `(n, 2)` on the CPU; row i belongs to image i."""
    return torch.rand(n, 2, generator=generator("cpu", seed, "cells", epoch))


@lru_cache(maxsize=2)
def op_numbers(n: int, seed: int, epoch: int) -> Tensor:
    """Return the uniform random numbers of DSA's ops of an epoch, `(n, 4)` on the CPU; row i belongs to image i."""
    return torch.rand(n, 4, generator=generator("cpu", seed, "dsa", epoch))


def cell_boxes(size: tuple[int, int], factor: int, u: Tensor) -> Tensor:
    """Return the part of each image that is shown, int64 `(b, 4)`: top, left, height, width.

    It is the whole image with probability 1 / factor^2, and otherwise one of its factor x factor cells, all with equal
    probability.

    Args:
        size: height and width of the images. `factor` divides both.
        factor: cells per side.
        u: uniform numbers `(b, 2)`.

    Raises:
        ValueError: `factor` does not divide the height or the width.
    """
    h, w = size
    if h % factor or w % factor:
        raise ValueError(
            f"views.tile must divide {h} and {w}, got {factor}. Use protocol.recipe.views.tile=1"
        )
    cells = factor**2
    whole = u[:, 0] < 1 / cells
    number = (u[:, 1] * cells).long().clamp_max(cells - 1)
    rows, columns = h // factor, w // factor
    top = torch.where(whole, 0, torch.div(number, factor, rounding_mode="floor") * rows)
    left = torch.where(whole, 0, number % factor * columns)
    height, width = torch.where(whole, h, rows), torch.where(whole, w, columns)
    return torch.stack([top, left, height, width], 1)
