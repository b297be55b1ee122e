"""Views of a batch that is being recovered: one crop, flip and roll for all its images.

The curriculum (CDA, Yin and Shen, TMLR 2024) moves the smallest area of a crop from the whole image to `smallest`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from dd_bench.api import boxes


class RecoverViews(BaseModel):
    """The keys of `method.views`.

    Attributes:
        smallest: smallest area of a random resized crop; null: no crop. The largest is the whole image.
        curriculum: how the smallest area gets there: `const` from the beginning, or `step`, `linear`, `cosine`.
        milestone: share of the iterations after which it is there; 0 is `const`.
        flip: mirror half of the batches, where that keeps the class.
        roll: range of the circular shift in pixels, both ends included, each way apart.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    smallest: float | None = Field(gt=0, le=1)
    curriculum: Literal["const", "step", "linear", "cosine"]
    milestone: float = Field(ge=0, le=1)
    flip: bool
    roll: tuple[int, int]

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.roll[0] > self.roll[1]:
            raise ValueError(f"roll={list(self.roll)} has its ends swapped. Use roll={list(self.roll[::-1])}")
        return self

    def area(self, step: int, iterations: int) -> float:
        """Returns the smallest area of a crop at a step: 1 at the first, `smallest` from the milestone on."""
        assert self.smallest is not None
        end = self.milestone * iterations
        if self.curriculum == "const" or step >= end:
            return self.smallest
        left = {
            "step": 1.0,
            "linear": 1 - step / end,
            "cosine": (1 + math.cos(math.pi * step / end)) / 2,
        }[self.curriculum]
        return self.smallest + (1 - self.smallest) * left

    def draw(
        self, step: int, iterations: int, shape: tuple[int, int, int], flip_allowed: bool, of: torch.Generator
    ) -> Callable[[Tensor], Tensor]:
        """Returns the view of a step, a differentiable map of batches `(b, c, h, w)`."""
        _, h, w = shape
        u = torch.rand(1, 25, generator=of)
        low, high = self.roll
        shift = [low + int(float(v) * (high - low + 1)) for v in u[0, 23:25]]
        mirrored = self.flip and flip_allowed and float(u[0, 22]) < 0.5
        box = None
        if self.smallest is not None:
            box = boxes((h, w), (self.area(step, iterations), 1.0), u[:, :22])[0].tolist()

        def view(x: Tensor) -> Tensor:
            if box is not None and box[2:] != [h, w]:
                top, left, height, width = box
                cut = x[:, :, top : top + height, left : left + width]
                x = F.interpolate(cut, (h, w), mode="bilinear", align_corners=False)
            if mirrored:
                x = x.flip(3)
            return x.roll((shift[0], shift[1]), (2, 3)) if any(shift) else x

        return view
