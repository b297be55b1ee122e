"""Draw the segment of an expert trajectory that the student follows in an iteration, and its target parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from dd_bench.api import DistillContext, EpochTarget, ExpertBuffer, FunctionalNetwork


class Window(BaseModel):
    """The range of start epochs of a segment, `first..stop-1`.

    With `grow_from`, the exclusive end of the range grows from `grow_from` to `stop` during the first `grow_over`
    iterations, which is DATM's `U = min(T+, T0 + floor((T+ - T0) it / E))`. Otherwise the end is constant.
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
                f"stop must be > first={self.first}, got {self.stop}. Example: stop={self.first + 1}"
            )
        if (self.grow_from is None) != (self.grow_over is None):
            raise ValueError(
                "grow_from and grow_over must both be integers, or both be null, "
                f"got {self.grow_from} and {self.grow_over}"
            )
        if self.grow_from is not None and not self.first < self.grow_from <= self.stop:
            raise ValueError(
                f"grow_from must be in first+1..stop = {self.first + 1}..{self.stop}, got {self.grow_from}. "
                f"Example: grow_from={self.first + 1}"
            )
        return self

    def stop_at(self, iteration: int) -> int:
        """Return the exclusive end of the window at an iteration."""
        if self.grow_from is None or self.grow_over is None:
            return self.stop
        return min(self.stop, self.grow_from + (self.stop - self.grow_from) * iteration // self.grow_over)


@dataclass(frozen=True)
class Segment:
    """A segment of an expert trajectory, from epoch `epoch` to epoch `epoch + M`.

    Attributes:
        epoch: Epoch of the expert that the student starts from.
        start: Parameters after that epoch, `(p,)`.
        targets: Parameters that the student should match. The last target has the parameters after epoch `epoch + M`.
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
    """Draw the segment of an iteration.

    Experts are drawn without replacement until all have been used. The start epoch is uniform in the window.

    If `intermediate` is `constant` or `ramp`, the segment also has targets within it, as in AST's released code. For
    1 <= j < epochs, the student after `steps // epochs * j` steps is compared with the expert j epochs after the start
    epoch. The weight of this target is 1 (`constant`) or j / epochs (`ramp`).
    """
    pass_index, position = divmod(iteration, len(buffer))
    expert = int(torch.randperm(len(buffer), generator=ctx.stream("experts", pass_index).host)[position])
    host = ctx.stream("window", iteration).host
    epoch = int(torch.randint(window.first, window.stop_at(iteration), (), generator=host))

    def theta(j: int) -> Tensor:
        return buffer.snapshot(expert, epoch + j, ctx.device)

    intermediate_epochs = range(1, epochs) if intermediate != "none" else ()
    targets = [
        EpochTarget(steps // epochs * j, theta(j), 1.0 if intermediate == "constant" else j / epochs)
        for j in intermediate_epochs
    ]
    return Segment(epoch, theta(0), [*targets, EpochTarget(steps, theta(epochs))])


def balance(epoch: int, stop: int) -> float:
    """Return the factor of the student's loss (AST): > 1 if the start epoch `epoch` is >= `stop // 2`, else < 1."""
    half = stop // 2
    factor = math.log(abs(epoch - half) + 8, 5)
    return factor if epoch >= half else 1 / factor


def perturbed(start: Tensor, flat: FunctionalNetwork, scale: float, generator: torch.Generator) -> Tensor:
    """Return `start (p,)`, in which each convolution weight tensor w is replaced by `w + scale * d / |d| * w`.

    The tensor d has the shape of w and elements from N(0, 1), and |d| is the Euclidean norm over all its elements.
    """
    theta = start.clone()
    for w in flat.split(theta).values():  # views of theta
        if w.ndim == 4:
            d = torch.randn(w.shape, generator=generator, device=w.device)
            w.mul_(1 + scale * d / d.norm())
    return theta
