"""FADRM's residual connection on images: between blocks of iterations, a share of the initial image is put back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from .images import Images


class Residual(BaseModel):
    """The keys of `method.residual`.

    Attributes:
        blocks: number of iterations of each block. They are scaled in proportion if their sum is not `iterations`.
        alpha: share of the optimised image that is kept between two blocks, in [0, 1].
        sizes: height of the images in each block, in pixels; None for the height of the dataset. The width is in
            proportion. The last block must have the height of the dataset.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    blocks: tuple[int, ...] = Field(min_length=1)
    alpha: float = Field(ge=0, le=1)
    sizes: tuple[int, ...] | None

    @field_validator("blocks")
    @classmethod
    def _positive(cls, blocks: tuple[int, ...]) -> tuple[int, ...]:
        if min(blocks) < 1:
            raise ValueError(f"each block must have at least one iteration, got {list(blocks)}")
        return blocks

    def starts(self, iterations: int) -> list[int]:
        """Return the first iteration of each block."""
        before, total = 0, sum(self.blocks)
        starts = []
        for length in self.blocks:
            starts.append(round(before * iterations / total))
            before += length
        return starts

    def check(self, iterations: int) -> str | None:
        """Return why the blocks do not fit to `iterations`, or None."""
        if self.sizes is not None and len(self.sizes) != len(self.blocks):
            return (
                "method.residual.sizes must have one size for each block, got "
                f"{len(self.sizes)} sizes for {len(self.blocks)} blocks. Example: method.residual.sizes=null"
            )
        starts = [*self.starts(iterations), iterations]
        if iterations and len(set(starts)) < len(starts):
            return (
                f"each of method.residual.blocks={list(self.blocks)} must have at least one of "
                f"method.iterations={iterations}. Example: method.iterations={sum(self.blocks)}"
            )
        return None

    def check_size(self, height: int) -> str | None:
        """Return why images of this height cannot be recovered, or None."""
        if self.sizes is None or (self.sizes[-1] == height and min(self.sizes) >= 1):
            return None
        return (
            f"the last of method.residual.sizes must be the height of the images, {height} pixels, got "
            f"{list(self.sizes)}. Example: method.residual.sizes=null"
        )


def resized(x: Tensor, height: int) -> Tensor:
    """Return images `(b, c, h, w)` with another height, bilinearly resized in proportion."""
    h, w = x.shape[2:]
    if height == h:
        return x
    size = (height, round(w * height / h))
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


class ResidualImages(Images):
    """Images that are optimised in blocks, of different sizes, and mixed with the initial images between blocks.

    At the start of each block but the first, with the initial images p:

        x = alpha resize(x, size) + (1 - alpha) resize(p, size), and Adam starts again
    """

    def __init__(self, x: Tensor, y: Tensor, residual: Residual, iterations: int):
        """Take the initial images `x (b, c, h, w)`, which are kept, their classes and the number of iterations."""
        super().__init__(x, y)
        self.residual = residual
        self.starts = residual.starts(iterations)
        sizes = residual.sizes or (x.shape[2],) * len(self.starts)
        self.levels = {size: resized(x, size).clone() for size in sizes}
        self.sizes, self.shapes = sizes, len(self.levels)
        self.block = 0

    @property
    def state(self) -> Mapping[str, Tensor]:
        """One tensor for each size; the other ones than that of the current block are not used."""
        return {f"variable{size}": x for size, x in self.levels.items()}

    @torch.no_grad()
    def begin(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """See `Images`."""
        self.block = sum(start <= step for start in self.starts) - 1
        if step > 0 and step == self.starts[self.block]:
            size, before = self.sizes[self.block], self.levels[self.sizes[self.block - 1]]
            alpha = self.residual.alpha
            mixed = alpha * resized(before, size) + (1 - alpha) * resized(self.x, size)
            self.levels[size].copy_(mixed)
            optimizer.state.clear()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """See `Images`."""
        return self.levels[self.sizes[self.block]], self.y

    def current(self) -> tuple[Tensor, Tensor]:
        """See `Images`."""
        return resized(self.levels[self.sizes[self.block]], self.x.shape[2]), self.y

    def result(self) -> Tensor:
        """See `Images`."""
        return self.levels[self.sizes[-1]]
