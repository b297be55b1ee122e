"""Views of the batch that is recovered: one crop, flip and roll for all of its images.

The curriculum (CDA, Yin and Shen, TMLR 2024) decreases the minimum area of a crop from the whole image to `smallest`.
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
        smallest: Final minimum area of a random resized crop, as a fraction of the image; None disables crops. The
            maximum area is the whole image.
        curriculum: Schedule of the minimum area: `const`, `step`, `linear` or `cosine`.
        milestone: Fraction of the iterations after which the minimum area is `smallest`; 0 is the same as `const`.
        flip: Whether to flip half of the batches horizontally, for datasets where a flip preserves the class.
        roll: Range of the circular shift in pixels, both ends included. The shifts along the two axes are drawn
            independently.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    smallest: float | None = Field(gt=0, le=1)
    curriculum: Literal["const", "step", "linear", "cosine"]
    milestone: float = Field(ge=0, le=1)
    flip: bool
    roll: tuple[int, int]

    @model_validator(mode="after")
    def _check_roll(self) -> Self:
        if self.roll[0] > self.roll[1]:
            raise ValueError(
                f"roll must be ascending, got {list(self.roll)}. Example: roll={list(self.roll[::-1])}"
            )
        return self

    def area(self, step: int, iterations: int) -> float:
        """Return the minimum area of a crop at a step, as a fraction of the image.

        With `curriculum=const`, the area is always `smallest`. Otherwise it is 1 at step 0, and `smallest` from the
        milestone on.
        """
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
        self,
        step: int,
        iterations: int,
        shape: tuple[int, int, int],
        flip_allowed: bool,
        generator: torch.Generator,
    ) -> Callable[[Tensor], Tensor]:
        """Draw the view of a step, a differentiable map of batches `(b, c, h, w)`."""
        _, h, w = shape
        u = torch.rand(1, 25, generator=generator)
        low, high = self.roll
        shift = [low + int(float(v) * (high - low + 1)) for v in u[0, 23:25]]
        flipped = self.flip and flip_allowed and float(u[0, 22]) < 0.5
        box = None
        if self.smallest is not None:
            box = boxes((h, w), (self.area(step, iterations), 1.0), u[:, :22])[0].tolist()

        def view(x: Tensor) -> Tensor:
            if box is not None and box[2:] != [h, w]:
                top, left, height, width = box
                cut = x[:, :, top : top + height, left : left + width]
                x = F.interpolate(cut, (h, w), mode="bilinear", align_corners=False)
            if flipped:
                x = x.flip(3)
            return x.roll((shift[0], shift[1]), (2, 3)) if any(shift) else x

        return view
