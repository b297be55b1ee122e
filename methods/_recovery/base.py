"""Base classes of this family: methods guided by teachers, and those that optimise pixels under them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from dd_bench.api import (
    Architecture,
    DistillContext,
    HookedTeacher,
    Method,
    RealSet,
    Teacher,
    TeacherSpec,
    executed_norms,
    parse,
    repays_compilation,
)

from .engine import Engine
from .views import RecoverViews


class Guided(Method):
    """A method of images in pixel space that follows the run's teachers, and is made in shards."""

    uses_teachers = True
    in_shards = True

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture):
            return reason
        if real.preprocess.kind != "normalise":
            return "pixels are clamped channel by channel, which whitening mixes. Use dataset.preprocess=normalise"
        return None

    def check_teachers(self, real: RealSet, ipc: int, teachers: Sequence[TeacherSpec]) -> str | None:
        """See `Method`."""
        return None if teachers else "it follows a teacher, and the run has none. Use teacher=convnet_bn"

    def prepare(self, real: RealSet, ctx: DistillContext) -> None:
        """Trains the teachers."""
        ctx.teachers_of(real)


class Recovery(Guided):
    """Optimises pixels until teachers recognise the classes and their BatchNorm layers the batch; see `Engine`."""

    smoke: ClassVar[dict[str, Any]] = {"iterations": 2}

    def __init__(
        self,
        *,
        iterations: int,
        lr_img: float,
        betas: tuple[float, float],
        statistics: float,
        first_layer: float,
        views: dict[str, Any],
    ):
        """Takes the keys that `conf/method/sre2l.yaml` and `conf/method/infer.yaml` share."""
        for name, value in (("lr_img", lr_img), ("statistics", statistics), ("first_layer", first_layer)):
            if not 0 <= value < math.inf:
                raise ValueError(f"method.{name}={value}: wanted a number >= 0")
        self.iterations, self.lr_img, self.betas = iterations, lr_img, betas
        self.statistics, self.first_layer = statistics, first_layer
        self.views = parse(RecoverViews, views, "method.views")

    def check_teachers(self, real: RealSet, ipc: int, teachers: Sequence[TeacherSpec]) -> str | None:
        """See `Method`."""
        if (reason := super().check_teachers(real, ipc, teachers)) or self.iterations == 0:
            return reason
        for spec in teachers:
            if spec.config.weights == "squeeze" and not executed_norms(
                spec.architecture.fresh(0, torch.device("cpu")), real.shape
            ):
                return (
                    f"teacher {spec.name} ({spec.architecture.title}) has no BatchNorm layer, whose running statistics "
                    f"are matched. Use teacher=convnet_bn, or a network with BatchNorm (a ConvNet with norm=batchnorm)"
                )
        return None

    def engine(self, real: RealSet, teachers: Sequence[Teacher], images: int, ctx: DistillContext) -> Engine:
        """Returns the optimisation under `teachers`, which take turns.

        Args:
            images: optimised in all; they decide whether compilation is worth its time.
        """
        return Engine(
            real,
            [HookedTeacher(teacher) for teacher in teachers] if self.iterations else [],
            self.views,
            self.iterations,
            self.lr_img,
            self.betas,
            self.statistics,
            self.first_layer,
            repays_compilation(self.iterations * images, real.shape, ctx.runtime),
        )
