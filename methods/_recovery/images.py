"""What recovery optimises: the images themselves, or in other modules a part of them or a perturbation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Images:
    """Images `x (b, c, h, w)` with classes `y (b,)`, which are optimised in place.

    Attributes:
        shapes: number of different shapes of a batch, for each of which a graph is compiled.
    """

    shapes = 1

    def __init__(self, x: Tensor, y: Tensor):
        """Take the initial images, network inputs that are not used elsewhere, and their classes."""
        self.x, self.y = x, y

    @property
    def state(self) -> Mapping[str, Tensor]:
        """The tensors that steps change."""
        return {"variable": self.x}

    def begin(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Called at the start of each step; may change the images and restart the optimiser."""

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the images of a step, differentiable in the tensors of `state`, and their classes."""
        return self.x, self.y

    @torch.no_grad()
    def clamp(self, black: Tensor, white: Tensor) -> None:
        """Clamp the images to the pixel range, whose ends are `(1, c, 1, 1)`. Called after each step."""
        for x in self.state.values():
            x.copy_(torch.minimum(torch.maximum(x, black), white))

    def current(self) -> tuple[Tensor, Tensor]:
        """Return all images in the shape of the dataset, and their classes; for previews."""
        return self.batch(-1)

    def result(self) -> Tensor:
        """Return the images after the last step, in the shape of the dataset."""
        return self.current()[0]
