"""What the student sees of the images: batches in shuffled rounds, crops of a canvas, augmentation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dd_bench.api import Augment, DistillContext, Draw, InnerStep


@dataclass(frozen=True)
class Views:
    """How each of the student's steps is shown its batch; a function of seed, iteration and step.

    Attributes:
        steps: N.
        batch: images a step; None: all.
        augment: drawn anew each step, its values for each image.
        shape: (c, h, w) of what the student sees.
        canvas: how many times larger than that the images are.
    """

    steps: int
    batch: int | None
    augment: Augment
    shape: tuple[int, int, int]
    canvas: int

    def plan(self, n: int, iteration: int, ctx: DistillContext) -> list[InnerStep]:
        """Returns the steps of an iteration on n images; a batch that the images do not fill is left out."""
        size = min(n, self.batch or n)
        everything, steps = torch.arange(n, device=ctx.device), []
        for i in range(self.steps):
            turn, place = divmod(i, n // size)
            index = everything
            if size < n:
                generator = ctx.generator("batches", iteration, turn)
                order = torch.randperm(n, generator=generator, device=ctx.device)
                index = order[place * size : (place + 1) * size]
            stream = ctx.stream("augment", iteration, i)
            corners = torch.rand(2, generator=stream.host)
            draw = self.augment.draw(1, stream, per_image=size) if self.augment else None

            def view(x: Tensor, corners: Tensor = corners, draw: Draw | None = draw) -> Tensor:
                x = self._crop(x, corners)
                return x if draw is None else self.augment.apply(x[None], draw)[0]

            steps.append(InnerStep(index, view))
        return steps

    def _crop(self, x: Tensor, corners: Tensor) -> Tensor:
        """Cuts one window, the same for the batch, from canvases that go round at their borders."""
        if self.canvas == 1:
            return x
        rows, cols = (int(u * side) for u, side in zip(corners, x.shape[2:], strict=True))
        return x.roll((-rows, -cols), (2, 3))[:, :, : self.shape[1], : self.shape[2]]
