"""The loop of recovery: Adam on images, or on what is added to images, under frozen teachers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from dd_bench.api import DistillContext, HookedTeacher, RealSet

from .views import RecoverViews

LAYERS_EVERY = 100
"""Steps between two logs of the distance of each layer."""


class Engine:
    """The optimisation that all units of a set share.

    Attributes:
        real: its shape, its range of pixels, and whether a flip keeps the class.
    """

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
        """Takes the teachers, which take turns, and the keys of `Recovery`; `weight` is `statistics`."""
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
        """Moves `variable` in place.

        Args:
            variable: the images themselves, or what is added to them.
            batch: makes the images `(b, c, h, w)` of it.
            y: their classes `(b,)`.
            name: of the unit; all randomness is drawn by it.
            ctx: of the unit.
            clamped: keep `variable` where pixels can be.
        """
        if self.iterations == 0:
            return
        device, shape = ctx.device, self.real.shape
        black, white = (self.real.preprocess(torch.full((1, *shape), v, device=device)) for v in (0.0, 1.0))
        eager = partial(recover_loss, weight=self.weight, autocast=ctx.runtime.autocast)
        loss_of = (
            torch.compile(eager, dynamic=False) if self.compiled else eager
        )  # once for all units of a teacher
        graphs = 2 * len(self.teachers) + 8  # a whole and a cut chunk of classes for each
        torch._dynamo.config.recompile_limit = max(graphs, torch._dynamo.config.recompile_limit)
        layers = [self._layers(teacher, device) for teacher in self.teachers]
        optimizer = torch.optim.Adam([variable.requires_grad_()], self.lr, self.betas)
        for step in ctx.steps(self.iterations, {"variable": variable, "optimizer": optimizer}, name):
            for group in optimizer.param_groups:
                group["lr"] = 0.5 * self.lr * (1 + math.cos(math.pi * step / self.iterations))
            of = ctx.stream(name, "view", step).host
            view = self.views.draw(step, self.iterations, shape, self.real.flip, of)
            turn = step % len(self.teachers)
            loss, distances = loss_of(self.teachers[turn], view(batch()), y, layers[turn])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if clamped:
                with torch.no_grad():
                    variable.copy_(torch.minimum(torch.maximum(variable, black), white))
            ctx.log(loss=loss, statistics=(layers[turn] * distances.detach()).sum())
            if step % LAYERS_EVERY == 0 or step == self.iterations - 1:
                norms = self.teachers[turn].teacher.norms
                ctx.log(
                    **{f"statistics/{name}": d for name, d in zip(norms, distances.detach(), strict=True)}
                )
        variable.requires_grad_(False)

    def _layers(self, teacher: HookedTeacher, device: torch.device) -> Tensor:
        """Returns the weight of each layer's distance, `(layers,)`."""
        weights = torch.ones(len(teacher.teacher.norms), device=device)
        weights[0] = self.first_layer
        return weights


def recover_loss(
    teacher: HookedTeacher, x: Tensor, y: Tensor, layers: Tensor, *, weight: float, autocast: bool
) -> tuple[Tensor, Tensor]:
    """Returns the loss of a batch `(b, c, h, w)` of classes `y (b,)`, and its distances by layer; 0-d, `(layers,)`."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
        logits, distances = teacher(x)
    return F.cross_entropy(logits, y) + weight * (layers * distances).sum(), distances
