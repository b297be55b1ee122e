"""Preview picture of a synthetic set: one row per class, up to ten images each."""

from __future__ import annotations

import io

import torch
from PIL import Image

from dd_bench.synthetic.base import SyntheticSet

_COLUMNS, _ROWS = 10, 20  # maximum numbers of images per class and of classes
_MAX_VALUES = 32 << 20  # larger images are subsampled, so that the file stays far below `card.MAX_PREVIEW`
_SIDE = 56  # smaller images are enlarged by an integer factor up to this many pixels


def preview_png(syn: SyntheticSet) -> bytes:
    """Return a PNG of the first images of the first classes."""
    from torchvision.utils import make_grid  # slow to import

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
    grid = make_grid(images, nrow=columns, padding=2, pad_value=1.0)
    buffer = io.BytesIO()
    Image.fromarray((grid * 255).round().byte().permute(1, 2, 0).numpy()).save(buffer, format="PNG")
    return buffer.getvalue()
