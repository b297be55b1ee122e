"""Contact sheet of a synthetic set: the images of every class, with the name of the class."""

from __future__ import annotations

import io

import torch
from PIL import Image, ImageDraw, ImageFont

from dd_bench.runtime.terminal import sanitize
from dd_bench.synthetic.base import SyntheticSet

_SIDE = 64  # smaller images are enlarged by an integer factor up to about this many pixels, larger ones are reduced
_GAP, _FONT = 4, 16
_MAX_NAME = 24  # characters
_COLUMNS, _ROWS = 50, 1000  # maximum numbers of images per class and of classes


def contact_sheet_png(syn: SyntheticSet) -> bytes:
    """Return a PNG with one row per class: its name, and its images in the order in which they are stored."""
    pictures, classes = syn.pictures()
    names = [sanitize(name)[:_MAX_NAME] for name in syn.class_names[:_ROWS]]
    count = min(_COLUMNS, int(torch.bincount(classes).max()))
    height, width = pictures.shape[2:]
    scale = (
        max(1, _SIDE // max(height, width)) if max(height, width) <= _SIDE else _SIDE * 2 / max(height, width)
    )
    cell = max(1, round(width * scale)), max(1, round(height * scale))
    font = ImageFont.load_default(_FONT)
    left = 2 * _GAP + round(max(font.getlength(name) for name in names))
    row_height = max(cell[1], _FONT + 2) + _GAP
    sheet = Image.new("RGB", (left + count * (cell[0] + _GAP), _GAP + len(names) * row_height), "white")
    draw = ImageDraw.Draw(sheet)
    for c, name in enumerate(names):
        top = _GAP + c * row_height
        draw.text((_GAP, top + (row_height - _GAP - _FONT) // 2), name, "black", font)
        for column, pixels in enumerate(pictures[classes == c][:count]):
            values = (pixels.clamp(0, 1) * 255).round().byte().expand(3, -1, -1)
            image = Image.fromarray(values.permute(1, 2, 0).contiguous().numpy())
            method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
            sheet.paste(image.resize(cell, method), (left + column * (cell[0] + _GAP), top))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()
