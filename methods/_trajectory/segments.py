"""Which stretch of which expert the student follows in an iteration, and what it is to match there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from dd_bench.api import DistillContext, EpochTarget, ExpertBuffer, FunctionalNetwork


class Window(BaseModel):
    """The epochs a segment may start at: first..stop-1, the stop growing from `grow_from` in `grow_over` iterations.

    DATM's `U = min(T+, T0 + floor((T+ - T0) it / E))`; the others' is fixed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: int = Field(ge=0)
    stop: int = Field(ge=1)
    grow_from: int | None
    grow_over: int | None = Field(ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.first >= self.stop:
            raise ValueError(
                f"first={self.first} and stop={self.stop}: no epoch to start at. Use stop={self.first + 1} or more"
            )
        if (self.grow_from is None) != (self.grow_over is None):
            raise ValueError("grow_from and grow_over are given together, or both null")
        if self.grow_from is not None and not self.first < self.grow_from <= self.stop:
            raise ValueError(
                f"grow_from={self.grow_from} is not in first+1..stop, {self.first + 1}..{self.stop}"
            )
        return self

    def stop_at(self, iteration: int) -> int:
        """Returns the exclusive end of the window in an iteration."""
        if self.grow_from is None or self.grow_over is None:
            return self.stop
        return min(self.stop, self.grow_from + (self.stop - self.grow_from) * iteration // self.grow_over)


@dataclass(frozen=True)
class Segment:
    """A stretch of an expert: epoch `epoch` to epoch `epoch + M`.

    Attributes:
        start: where the student starts, `(p,)`; perturbed if the method says so.
        targets: the epochs it is to match, the last one at the end.
    """

    epoch: int
    start: Tensor
    targets: list[EpochTarget]


def draw_segment(
    buffer: ExpertBuffer,
    window: Window,
    iteration: int,
    steps: int,
    epochs: int,
    intermediate: str,
    ctx: DistillContext,
) -> Segment:
    """Draws the segment of an iteration: experts in shuffled rounds, the start uniform in the window.

    With `intermediate`, the student is also compared after `steps // epochs * j` steps with the expert after j
    epochs, weighted by 1 (constant) or j / epochs (ramp); AST's code.
    """
    turn, place = divmod(iteration, len(buffer))
    expert = int(torch.randperm(len(buffer), generator=ctx.stream("experts", turn).host)[place])
    host = ctx.stream("window", iteration).host
    epoch = int(torch.randint(window.first, window.stop_at(iteration), (), generator=host))

    def at(j: int) -> Tensor:
        return buffer.snapshot(expert, epoch + j, ctx.device)

    between = range(1, epochs) if intermediate != "none" else ()
    targets = [
        EpochTarget(steps // epochs * j, at(j), 1.0 if intermediate == "constant" else j / epochs)
        for j in between
    ]
    return Segment(epoch, at(0), [*targets, EpochTarget(steps, at(epochs))])


def balance(epoch: int, stop: int) -> float:
    """Returns the factor of the student's loss: above 1 in the later half of the window, below in the earlier."""
    half = stop // 2
    factor = math.log(abs(epoch - half) + 8, 5)
    return factor if epoch >= half else 1 / factor


def perturbed(start: Tensor, flat: FunctionalNetwork, scale: float, generator: torch.Generator) -> Tensor:
    """Returns `w + scale d / |d| w` for each convolution w, with d of N(0, 1); other parameters as they are."""
    moved = start.clone()
    for part in flat.split(moved).values():  # views
        if part.ndim == 4:
            d = torch.randn(part.shape, generator=generator, device=part.device)
            part.mul_(1 + scale * d / d.norm())
    return moved
