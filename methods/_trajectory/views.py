"""The inputs of the student: shuffled batches of synthetic images, cropped if they are canvases, and augmented."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dd_bench.api import Augment, DistillContext, Draw, InnerStep


@dataclass(frozen=True)
class Views:
    """Batches and views for the steps of the student. They depend only on the run's seed, the iteration and the step.

    Attributes:
        steps: Number of steps N.
        batch: Images per step, or None for all images.
        augment: Augmentation, drawn for each image at each step.
        shape: Shape (c, h, w) of the student's inputs.
        canvas: Factor by which the sides of the synthetic images are larger than `shape`.
    """

    steps: int
    batch: int | None
    augment: Augment
    shape: tuple[int, int, int]
    canvas: int

    def plan(self, n: int, iteration: int, ctx: DistillContext) -> list[InnerStep]:
        """Return the student's steps in an iteration. Batches are drawn from n images; incomplete ones are dropped."""
        size = min(n, self.batch or n)
        all_images, steps = torch.arange(n, device=ctx.device), []
        for i in range(self.steps):
            epoch, batch = divmod(i, n // size)
            index = all_images
            if size < n:
                generator = ctx.generator("batches", iteration, epoch)
                order = torch.randperm(n, generator=generator, device=ctx.device)
                index = order[batch * size : (batch + 1) * size]
            stream = ctx.stream("augment", iteration, i)
            corners = torch.rand(2, generator=stream.host)
            draw = self.augment.draw(1, stream, per_image=size) if self.augment else None

            def view(x: Tensor, corners: Tensor = corners, draw: Draw | None = draw) -> Tensor:
                x = self._crop(x, corners)
                return x if draw is None else self.augment.apply(x[None], draw)[0]

            steps.append(InnerStep(index, view))
        return steps

    def _crop(self, x: Tensor, corners: Tensor) -> Tensor:
        """Cut the same random window from every image `(b, c, h, w)` of the batch; canvases wrap at their borders."""
        if self.canvas == 1:
            return x
        rows, cols = (int(u * side) for u, side in zip(corners, x.shape[2:], strict=True))
        return x.roll((-rows, -cols), (2, 3))[:, :, : self.shape[1], : self.shape[2]]
