"""Optimisation loop of recovery: Adam on images, or on a perturbation of images, under frozen teachers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from dd_bench.api import DistillContext, HookedTeacher, ImageSet, RealSet, State

from .views import RecoverViews

LAYERS_EVERY = 100
"""Number of steps between two logs of the distances of single layers."""


class Engine:
    """The optimisation loop that recovers the images of each shard of a synthetic set."""

    def __init__(
        self,
        real: RealSet,
        teachers: Sequence[HookedTeacher],
        views: RecoverViews,
        iterations: int,
        lr: float,
        betas: tuple[float, float],
        weight: float,
        first_layer: float,
        compiled: bool,
    ):
        """Create the loop.

        Args:
            real: Set that provides the image shape, the pixel range and whether a flip preserves the class.
            teachers: Teachers. Each step uses one of them, in turn.
            views: Views of the batch.
            iterations: Number of steps.
            lr: Initial learning rate of Adam.
            betas: Betas of Adam.
            weight: Weight of the BatchNorm loss.
            first_layer: Factor of `weight` at the first layer.
            compiled: Whether to compile the loss.
        """
        self.real, self.teachers, self.views, self.iterations = real, list(teachers), views, iterations
        self.lr, self.betas, self.weight, self.first_layer = lr, betas, weight, first_layer
        self.compiled = compiled

    def optimise(
        self,
        variable: Tensor,
        batch: Callable[[], Tensor],
        y: Tensor,
        name: str,
        ctx: DistillContext,
        *,
        clamped: bool,
    ) -> None:
        """Optimise `variable` in place.

        Args:
            variable: Images, or a perturbation of images.
            batch: Function that computes the images `(b, c, h, w)` from the current `variable`.
            y: Classes of the images, `(b,)`.
            name: Name of the unit. This name and the run's seed determine all random numbers.
            ctx: Context of the unit.
            clamped: Whether to clamp `variable` to the pixel range after each step.
        """
        if self.iterations == 0:
            return
        device, shape = ctx.device, self.real.shape
        black, white = (self.real.preprocess(torch.full((1, *shape), v, device=device)) for v in (0.0, 1.0))
        loss_of: Callable[..., tuple[Tensor, Tensor]]
        loss_of = partial(recover_loss, weight=self.weight, autocast=ctx.runtime.autocast)
        if self.compiled:
            # One graph is compiled for each teacher and each chunk size. The last chunk of classes may be smaller.
            loss_of = torch.compile(loss_of, dynamic=False)
            limit = torch._dynamo.config.recompile_limit
            torch._dynamo.config.recompile_limit = max(2 * len(self.teachers) + 8, limit)
        layers = [self._layers(teacher, device) for teacher in self.teachers]
        optimizer = torch.optim.Adam([variable.requires_grad_()], self.lr, self.betas)
        state: State = {"variable": variable, "optimizer": optimizer}

        def recovered() -> ImageSet:
            return ImageSet.of(self.real, batch(), y, "input")

        for step in ctx.steps(self.iterations, state, name, preview=recovered):
            for group in optimizer.param_groups:
                group["lr"] = 0.5 * self.lr * (1 + math.cos(math.pi * step / self.iterations))
            generator = ctx.stream(name, "view", step).host
            view = self.views.draw(step, self.iterations, shape, self.real.flip, generator)
            i = step % len(self.teachers)
            loss, distances = loss_of(self.teachers[i], view(batch()), y, layers[i])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if clamped:
                with torch.no_grad():
                    variable.copy_(torch.minimum(torch.maximum(variable, black), white))
            ctx.log(loss=loss, statistics=(layers[i] * distances.detach()).sum())
            if step % LAYERS_EVERY == 0 or step == self.iterations - 1:
                norms = self.teachers[i].teacher.norms
                ctx.log(
                    **{f"statistics/{name}": d for name, d in zip(norms, distances.detach(), strict=True)}
                )
        variable.requires_grad_(False)

    def _layers(self, teacher: HookedTeacher, device: torch.device) -> Tensor:
        """Return the weight of each layer's distance, `(layers,)`."""
        weights = torch.ones(len(teacher.teacher.norms), device=device)
        weights[0] = self.first_layer
        return weights


def recover_loss(
    teacher: HookedTeacher, x: Tensor, y: Tensor, layers: Tensor, *, weight: float, autocast: bool
) -> tuple[Tensor, Tensor]:
    """Return the loss of images `x (b, c, h, w)` with classes `y (b,)`, and the distance at each layer `(layers,)`."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
        logits, distances = teacher(x)
    return F.cross_entropy(logits, y) + weight * (layers * distances).sum(), distances
