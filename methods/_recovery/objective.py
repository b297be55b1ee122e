"""Losses of recovery. `InTurn` is that of SRe2L: cross-entropy and BatchNorm statistics of one teacher per step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dd_bench.api import HookedTeacher


class Parts(NamedTuple):
    """The loss of a batch, and what is logged of it.

    Attributes:
        loss: 0-d, the loss that is minimised.
        statistics: 0-d, the sum of the distances of the layers with their weights, detached.
        layers: names of the layers.
        distances: distance of each layer, `(layers,)`, detached.
    """

    loss: Tensor
    statistics: Tensor
    layers: Sequence[str]
    distances: Tensor


class Objective(ABC):
    """The loss that recovery minimises."""

    @abstractmethod
    def __call__(self, step: int, x: Tensor, y: Tensor) -> Parts:
        """Return the loss of a view `x (b, c, h, w)` of images with classes `y (b,)` at a step."""


class InTurn(Objective):
    """Cross-entropy and weighted BatchNorm distances of one teacher per step, in turn."""

    def __init__(
        self,
        teachers: Sequence[HookedTeacher],
        weight: float,
        first_layer: float,
        *,
        autocast: bool,
        compiled: bool,
        shapes: int = 1,
    ):
        """Create the loss.

        Args:
            teachers: teachers. Each step uses one of them, in turn.
            weight: weight of the BatchNorm loss.
            first_layer: factor of `weight` at the first layer.
            autocast: whether to compute in bfloat16.
            compiled: whether to compile the loss.
            shapes: number of different shapes of batches.
        """
        self.teachers = list(teachers)
        self.layers = [layer_weights(teacher, first_layer) for teacher in self.teachers]
        loss = partial(recover_loss, weight=weight, autocast=autocast)
        self._loss = compiled_loss(loss, shapes * len(self.teachers)) if compiled else loss

    def __call__(self, step: int, x: Tensor, y: Tensor) -> Parts:
        """See `Objective`."""
        i = step % len(self.teachers)
        loss, distances = self._loss(self.teachers[i], x, y, self.layers[i])
        distances = distances.detach()
        return Parts(loss, (self.layers[i] * distances).sum(), self.teachers[i].teacher.norms, distances)


def layer_weights(teacher: HookedTeacher, first_layer: float) -> Tensor:
    """Return the weight of each layer's distance, `(layers,)`: `first_layer` for the first layer, 1 for the others."""
    weights = torch.ones(len(teacher.teacher.norms), device=next(teacher.net.parameters()).device)
    weights[0] = first_layer
    return weights


def compiled_loss(loss: Callable[..., Any], graphs: int) -> Callable[..., Any]:
    """Return a compiled loss, for which up to twice `graphs` graphs are compiled.

    There is one graph for each teacher and each shape of a batch. The last chunk of classes may be smaller.
    """
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(2 * graphs + 8, limit)
    return torch.compile(loss, dynamic=False)


def recover_loss(
    teacher: HookedTeacher, x: Tensor, y: Tensor, layers: Tensor, *, weight: float, autocast: bool
) -> tuple[Tensor, Tensor]:
    """Return the loss of images `x (b, c, h, w)` with classes `y (b,)`, and the distance at each layer `(layers,)`."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
        logits, distances = teacher(x)
    return F.cross_entropy(logits, y) + weight * (layers * distances).sum(), distances
