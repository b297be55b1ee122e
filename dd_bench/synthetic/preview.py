"""Preview picture of a synthetic set: one row per class, up to ten images each."""

from __future__ import annotations

import io

import torch
from PIL import Image
from torch import Tensor

from dd_bench.synthetic.base import SyntheticSet

_COLUMNS, _ROWS = 10, 20  # maximum numbers of images per class and of classes
_MAX_VALUES = 32 << 20  # larger images are subsampled, so that the file stays far below `card.MAX_PREVIEW`
_SIDE = 56  # smaller images are enlarged by an integer factor up to this many pixels


def preview_png(syn: SyntheticSet) -> bytes:
    """Return a PNG of the first images of the first classes."""
    pictures, classes = syn.pictures()
    rows = []
    columns = min(_COLUMNS, int(torch.bincount(classes).max()))
    for c in classes.unique().tolist()[:_ROWS]:
        row = pictures[classes == c][:columns]
        rows.append(torch.cat([row, torch.ones(columns - len(row), *row.shape[1:])]))
    images = torch.cat(rows)
    while images.numel() > _MAX_VALUES:
        images = images[..., ::2, ::2]
    scale = max(1, _SIDE // images.shape[-1])
    images = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    grid = picture_grid(images, columns)
    buffer = io.BytesIO()
    Image.fromarray((grid * 255).round().byte().permute(1, 2, 0).numpy()).save(buffer, format="PNG")
    return buffer.getvalue()


def picture_grid(images: Tensor, columns: int) -> Tensor:
    """Return images `(n, c, h, w)` in rows of `columns`, `(3, H, W)`, with white lines of two pixels around each.

    Grey images become images of three channels. A single image has no lines. The result is that of `make_grid` of
    torchvision, whose import takes seconds.
    """
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    if len(images) == 1:
        return images[0]
    n, c, h, w = images.shape
    columns, line = min(columns, n), 2
    rows = -(-n // columns)
    grid = images.new_ones(c, rows * (h + line) + line, columns * (w + line) + line)
    for i, image in enumerate(images):
        y, x = i // columns * (h + line) + line, i % columns * (w + line) + line
        grid[:, y : y + h, x : x + w] = image
    return grid
