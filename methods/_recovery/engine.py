"""Optimisation loop of recovery: Adam on images, or on a perturbation of images, under frozen teachers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dd_bench.api import DistillContext, ImageSet, RealSet, State

from .images import Images
from .objective import Objective
from .views import RecoverViews

LAYERS_EVERY = 100
"""Number of steps between two logs of the distances of single layers."""


class Engine:
    """The optimisation loop that recovers the images of each shard of a synthetic set."""

    def __init__(
        self, real: RealSet, views: RecoverViews, iterations: int, lr: float, betas: tuple[float, float]
    ):
        """Create the loop.

        Args:
            real: Set that provides the pixel range and whether a flip preserves the class.
            views: Views of the batch.
            iterations: Number of steps.
            lr: Initial learning rate of Adam.
            betas: Betas of Adam.
        """
        self.real, self.views, self.iterations = real, views, iterations
        self.lr, self.betas = lr, betas

    def optimise(self, images: Images, objective: Objective, name: str, ctx: DistillContext) -> Tensor:
        """Optimise `images` in place, and return them as network inputs `(b, c, h, w)`.

        Args:
            images: What is optimised.
            objective: The loss of a view of the images.
            name: Name of the unit. This name and the run's seed determine all random numbers.
            ctx: Context of the unit.
        """
        if self.iterations == 0:
            return images.result()
        black, white = self._pixel_range(ctx.device)
        variables = [x.requires_grad_() for x in images.state.values()]
        optimizer = torch.optim.Adam(variables, self.lr, self.betas)
        state: State = {**images.state, "optimizer": optimizer}

        def recovered() -> ImageSet:
            return ImageSet.of(self.real, *images.current(), "input")

        for step in ctx.steps(self.iterations, state, name, preview=recovered):
            images.begin(step, optimizer)
            for group in optimizer.param_groups:
                group["lr"] = self.rate(step)
            x, y = images.batch(step)
            c, h, w = x.shape[1:]
            generator = ctx.stream(name, "view", step).host
            view = self.views.draw(step, self.iterations, (c, h, w), self.real.flip, generator)
            parts = objective(step, view(x), y)
            optimizer.zero_grad(set_to_none=True)
            parts.loss.backward()
            optimizer.step()
            images.clamp(black, white)
            ctx.log(loss=parts.loss, statistics=parts.statistics)
            if step % LAYERS_EVERY == 0 or step == self.iterations - 1:
                ctx.log(**{f"statistics/{n}": d for n, d in zip(parts.layers, parts.distances, strict=True)})
        for x in variables:
            x.requires_grad_(False)
        return images.result()

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: a cosine from `lr` to zero over all iterations."""
        return 0.5 * self.lr * (1 + math.cos(math.pi * step / self.iterations))

    def _pixel_range(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the network inputs of black and of white pixels, `(1, c, 1, 1)`."""
        shape = (1, *self.real.shape)
        black, white = (self.real.preprocess(torch.full(shape, v, device=device)) for v in (0.0, 1.0))
        return black[:, :, :1, :1], white[:, :, :1, :1]
