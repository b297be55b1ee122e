"""CV-DD's loss: a weighted sum of the losses of a committee of teachers, at every step (arXiv 2501.07575)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations

import torch
from torch import Tensor

from dd_bench.api import HookedTeacher

from .objective import Objective, Parts, compiled_loss, layer_weights, recover_loss


def committees(teachers: int, members: int) -> list[tuple[int, ...]]:
    """Return all groups of `members` of the teachers, by index, in lexicographic order, as in the released code."""
    return list(combinations(range(teachers), members))


def prior_weights(prior: Sequence[float], temperature: float) -> list[float]:
    """Return the weights of teachers, softmax(prior / temperature)."""
    weights: list[float] = (torch.tensor(prior, dtype=torch.float64) / temperature).softmax(0).tolist()
    return weights


class Committee(Objective):
    """The weighted sum of the losses of several teachers for the same view."""

    def __init__(
        self,
        teachers: Sequence[HookedTeacher],
        weights: Sequence[float],
        weight: float,
        first_layer: float,
        *,
        autocast: bool,
        compiled: bool,
    ):
        """Create the loss.

        Args:
            teachers: the members of the committee.
            weights: weight of each member.
            weight: weight of the BatchNorm loss, relative to the cross-entropy.
            first_layer: factor of `weight` at the first layer.
            autocast: whether to compute in bfloat16.
            compiled: whether to compile the loss of a teacher.
        """
        self.teachers, self.weights = list(teachers), list(weights)
        self.layers = [layer_weights(teacher, first_layer) for teacher in self.teachers]
        loss = partial(recover_loss, weight=weight, autocast=autocast)
        self._loss = compiled_loss(loss, len(self.teachers)) if compiled else loss
        self.names = [f"{t.teacher.name}/{norm}" for t in self.teachers for norm in t.teacher.norms]

    def __call__(self, step: int, x: Tensor, y: Tensor) -> Parts:
        """See `Objective`."""
        total, statistics = x.new_zeros(()), x.new_zeros(())
        found = []
        for teacher, w, layers in zip(self.teachers, self.weights, self.layers, strict=True):
            loss, distances = self._loss(teacher, x, y, layers)
            total = total + w * loss
            found.append(distances.detach())
            statistics = statistics + w * (layers * found[-1]).sum()
        return Parts(total, statistics, self.names, torch.cat(found))
