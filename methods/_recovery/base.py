"""Two base classes: of methods that build images with teachers, and of methods that optimise pixels with teachers."""

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
    uses_compilation,
)

from .engine import Engine
from .views import RecoverViews


class Guided(Method):
    """Base class of methods that build images with the run's teachers. The images are built in shards."""

    uses_teachers = True
    in_shards = True

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture):
            return reason
        if real.preprocess.kind != "normalise":
            return (
                f"{type(self).__name__} clamps each channel to the pixel range, but ZCA whitening mixes channels. "
                "Use dataset.preprocess=normalise"
            )
        return None

    def check_teachers(self, real: RealSet, ipc: int, teachers: Sequence[TeacherSpec]) -> str | None:
        """See `Method`."""
        return None if teachers else f"{type(self).__name__} requires a teacher. Use teacher=convnet_bn"

    def prepare(self, real: RealSet, ctx: DistillContext) -> None:
        """Train the teachers."""
        ctx.teachers_of(real)


class Recovery(Guided):
    """Base class of methods that optimise pixels with a teacher's loss and BatchNorm statistics; see `Engine`."""

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
        """See `conf/method/sre2l.yaml` for the arguments.

        Raises:
            ValueError: A value is negative or not finite.
        """
        for name, value in (("lr_img", lr_img), ("statistics", statistics), ("first_layer", first_layer)):
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"method.{name} must be a number >= 0, got {value}. Example: method.{name}=1.0"
                )
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
                    f"{type(self).__name__} matches running statistics of BatchNorm layers, and teacher {spec.name} "
                    f"({spec.architecture.title}) has no BatchNorm layer. Use teacher=convnet_bn, or another network "
                    "with BatchNorm"
                )
        return None

    def engine(self, real: RealSet, teachers: Sequence[Teacher], images: int, ctx: DistillContext) -> Engine:
        """Return the optimisation loop. Each step uses one of `teachers`, in turn.

        Args:
            images: Total number of images to optimise, which determines whether to compile.
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
            uses_compilation(self.iterations * images, real.shape, ctx.runtime),
        )
