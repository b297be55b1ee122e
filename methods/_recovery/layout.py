"""Units of recovery: the images that are optimised together in one batch.

Image (c, s) of a set is number s of class c. In the layout `slot`, a unit contains the same slot of several classes,
one image of each class (SRe2L). In the layout `class`, it contains all images of one or several consecutive classes
(DELT, WMDD, LPLD). The layout decides which images the BatchNorm statistics are computed from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dd_bench.api import ImageSet, RealSet

Layout = Literal["slot", "class"]
LAYOUTS: tuple[Layout, ...] = ("slot", "class")


@dataclass(frozen=True)
class Unit:
    """The images of some consecutive classes and slots, sorted by class, then by slot.

    Attributes:
        name: name of the unit. This name and the run's seed determine all random numbers of the unit.
        number: the slot in the layout `slot`, the number of the batch of classes in the layout `class`.
        classes: the classes.
        slots: the slots.
    """

    name: str
    number: int
    classes: range
    slots: range

    @property
    def stream(self) -> tuple[str | int, ...]:
        """Name of the random stream of the initial images."""
        return (self.slots.start, self.classes.start) if len(self.slots) == 1 else (self.name,)

    def labels(self, device: torch.device) -> Tensor:
        """Return the classes of the images, int64 `(b,)`."""
        classes = torch.arange(self.classes.start, self.classes.stop, device=device)
        return classes.repeat_interleave(len(self.slots))

    def of(self, images: Tensor) -> Tensor:
        """Return the unit's part `(b, ...)` of something that all images `(k, ipc, ...)` have."""
        part = images[self.classes.start : self.classes.stop, self.slots.start : self.slots.stop]
        return part.flatten(0, 1)


def units_of(layout: Layout, num_classes: int, ipc: int, batch: int | None) -> list[Unit]:
    """Return the units of a set.

    Args:
        layout: `slot` or `class`.
        num_classes: number of classes k.
        ipc: images per class.
        batch: number of images of a unit; None for the largest possible one. In the layout `class`, a unit has the
            images of `batch // ipc` classes, at least of one.
    """
    if layout == "slot":
        size = batch or num_classes
        return [
            Unit(f"slot{slot}-class{classes.start}", slot, classes, range(slot, slot + 1))
            for slot in range(ipc)
            for classes in _chunks(num_classes, size)
        ]
    size = num_classes if batch is None else max(1, batch // ipc)
    return [
        Unit(f"class{classes.start}", number, classes, range(ipc))
        for number, classes in enumerate(_chunks(num_classes, size))
    ]


def _chunks(num_classes: int, size: int) -> list[range]:
    """Return consecutive ranges of `size` classes; the last one can be shorter."""
    return [range(first, min(first + size, num_classes)) for first in range(0, num_classes, size)]


def pixels_of(real: RealSet, x: Tensor) -> Tensor:
    """Return network inputs `(b, c, h, w)` as pixels, uint8, rounded to the nearest value."""
    pixels = real.preprocess.inverse(x).clamp(0, 1)
    return (pixels * 255).round().to(torch.uint8)


def assembled(real: RealSet, ipc: int, units: Sequence[Unit], pixels: Sequence[Tensor]) -> ImageSet:
    """Return the set of the images of all units, uint8 `(b, c, h, w)`, sorted by class, then by slot."""
    images = torch.empty(real.num_classes, ipc, *real.shape, dtype=torch.uint8, device=pixels[0].device)
    for unit, x in zip(units, pixels, strict=True):
        part = images[unit.classes.start : unit.classes.stop, unit.slots.start : unit.slots.stop]
        part.copy_(x.view(part.shape))
    labels = torch.arange(real.num_classes).repeat_interleave(ipc)
    return ImageSet.of(real, images.flatten(0, 1), labels, "pixel")
