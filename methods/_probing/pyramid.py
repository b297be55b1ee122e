"""Images as sums of coarse to fine levels in decorrelated colours (LGM, Cazenavette et al., NeurIPS 2025)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dd_bench.api import DistillContext, RealSet, State, random_rows

COLOUR_IMAGES = 1000
"""Number of random real images from which the covariance of the colours is computed."""


class Pyramid:
    """The images `sigmoid(2 M sum_r up(P_r))`, where `P_r` has a side of 1, 2, 4, ... pixels, up to that of the images.

    `up` is bilinear and `M` decorrelates the colours. Optimisation starts with the first level. After every
    `level_every` steps, the next level is added: with L levels, it is N(0, 1) / L, the others are multiplied by (L - 1)
    / L, and Adam is restarted.

    Deviations from the released code: The last level has the size of the image instead of 256 pixels. `M` is the
    symmetric root of the covariance of the training images' colours, divided by the largest length of its columns,
    instead of a constant for ImageNet.

    Attributes:
        levels: `(n, c, side, side)` each, one for each size. Levels that were not added yet are zero.
        count: number of levels that are used.
        optimizer: Adam on the levels.
    """

    def __init__(self, real: RealSet, n: int, level_every: int, lr: float, ctx: DistillContext):
        """Draw the first level of `n` images."""
        c, h, w = real.shape
        self.size, self.level_every, self._ctx = (h, w), level_every, ctx
        sides = [2**i for i in range((max(h, w) - 1).bit_length())] + [max(h, w)]
        self.levels = [
            torch.zeros(n, c, min(side, h), min(side, w), device=ctx.device).requires_grad_()
            for side in sides
        ]
        self.count = 1
        with torch.no_grad():
            self.levels[0].copy_(self._noise(0))
        self.optimizer = torch.optim.Adam(self.levels, lr)
        self._colour = colour_root(real, ctx.generator("colours"))

    @property
    def state(self) -> State:
        """What a checkpoint contains."""
        return {f"level{r}": level for r, level in enumerate(self.levels)} | {"optimizer": self.optimizer}

    def levels_at(self, step: int) -> int:
        """Return the number of levels that are used in a step."""
        return min(len(self.levels), 1 + max(step, 0) // self.level_every)

    def grow(self, step: int) -> None:
        """Add the level that is due at the start of `step`, if any."""
        self.count = self.levels_at(step)
        new, left = divmod(step, self.level_every)
        if left or not 0 < new < len(self.levels):
            return
        with torch.no_grad():
            for level in self.levels[:new]:
                level.mul_(new / (new + 1))
            self.levels[new].copy_(self._noise(new) / (new + 1))
        self.optimizer.state.clear()

    def images(self) -> Tensor:
        """Return the images, `(n, c, h, w)` in (0, 1); differentiable in the levels that are used."""
        total = torch.stack(
            [
                F.interpolate(level, self.size, mode="bilinear", align_corners=False)
                for level in self.levels[: self.count]
            ]
        ).sum(0)
        return torch.einsum("dc,nchw->ndhw", 2 * self._colour, total).sigmoid()

    def _noise(self, r: int) -> Tensor:
        level = self.levels[r]
        return torch.randn(level.shape, generator=self._ctx.generator("level", r), device=level.device)


def colour_root(real: RealSet, generator: torch.Generator) -> Tensor:
    """Return the `(c, c)` matrix that gives independent values the correlations of the colours of the training images.

    It is the symmetric square root of their covariance, divided by the largest length of its columns; 1 for grey
    images.
    """
    c = real.shape[0]
    device = real.train.labels.device
    if c == 1:
        return torch.ones(1, 1, device=device)
    index = random_rows(len(real.train), COLOUR_IMAGES, generator)
    colours = real.train.pixels(index).float().transpose(0, 1).flatten(1) / 255  # (c, pixels)
    values, vectors = torch.linalg.eigh(torch.cov(colours))
    root: Tensor = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
    longest: Tensor = root.norm(dim=0).max()
    return root / longest
