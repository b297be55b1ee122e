"""Base classes of methods that optimise pixels with teachers, and the set of their images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import (
    Architecture,
    DistillContext,
    HookedTeacher,
    ImageSet,
    RealSet,
    Shard,
    Teacher,
    TeacherSpec,
    executed_norms,
    parse,
    uses_compilation,
)
from dd_bench.methods._arguments import check_at_least, check_choice

from .engine import Engine
from .guided import Guided
from .layout import LAYOUTS, Layout, Unit, assembled, pixels_of, units_of
from .objective import InTurn
from .patches import Patches
from .ranked import Rank
from .start import RANKED_INITS, Start, check_start, initial
from .views import RecoverViews


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

    def engine(self, real: RealSet) -> Engine:
        """Return the optimisation loop."""
        return Engine(real, self.views, self.iterations, self.lr_img, self.betas)

    def in_turn(
        self, real: RealSet, teachers: Sequence[Teacher], images: int, ctx: DistillContext, shapes: int = 1
    ) -> InTurn:
        """Return the loss of SRe2L, for which each step uses one of `teachers`, in turn.

        Args:
            real: the real set.
            teachers: the teachers.
            images: total number of images to optimise, which determines whether to compile.
            ctx: context of the run.
            shapes: number of different shapes of batches.
        """
        return InTurn(
            [HookedTeacher(teacher) for teacher in teachers] if self.iterations else [],
            self.statistics,
            self.first_layer,
            autocast=ctx.runtime.autocast,
            compiled=self.compiles(real, images, ctx),
            shapes=shapes,
        )

    def compiles(self, real: RealSet, images: int, ctx: DistillContext) -> bool:
        """Return whether compilation of the loss saves time for `images` images."""
        return uses_compilation(self.iterations * images, real.shape, ctx.runtime)


def recovered(
    real: RealSet,
    ipc: int,
    units: Sequence[Unit],
    recover: Callable[[Unit, DistillContext], Tensor],
    ctx: DistillContext,
) -> ImageSet:
    """Return the set of the images of all units, each built as a shard.

    Args:
        real: the real set.
        ipc: images per class.
        units: the units, which contain each image once.
        recover: returns the images of a unit, network inputs `(b, c, h, w)`.
        ctx: context of the run.
    """

    def build(unit: Unit, ctx: DistillContext) -> Shard:
        return {"pixels": pixels_of(real, recover(unit, ctx))}

    shards = ctx.shards({unit.name: partial(build, unit) for unit in units})
    return assembled(real, ipc, units, [shards[unit.name]["pixels"] for unit in units])


class ImageRecovery(Recovery):
    """Base class of the methods that choose their initial images and the layout of a batch by keys."""

    smoke: ClassVar[dict[str, Any]] = {**Recovery.smoke, "patches.images": 4, "patches.crops": 2}

    def __init__(
        self,
        *,
        init: str,
        rank: dict[str, Any],
        patches: dict[str, Any],
        layout: Layout,
        batch: int | None,
        **kwargs: Any,
    ):
        """See `conf/method/delt.yaml` for the arguments; `kwargs` are those of `Recovery`.

        Raises:
            ValueError: A value is unknown or out of range.
        """
        check_choice("init", init, RANKED_INITS)
        check_choice("layout", layout, LAYOUTS)
        check_at_least(1, batch=batch)
        super().__init__(**kwargs)
        self.init, self.layout, self.batch = init, layout, batch
        self.rank = parse(Rank, rank, "method.rank")
        self.patches = parse(Patches, patches, "method.patches")

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture):
            return reason
        return check_start(self.init, real, ipc, self.patches, self.rank)

    def start(self, real: RealSet, ipc: int, observer: Teacher, ctx: DistillContext) -> Start:
        """Return the initial images of each unit; `observer` selects patches and ranks images."""
        return initial(self.init, real, ipc, observer, self.patches, self.rank, ctx)

    def units(self, real: RealSet, ipc: int) -> list[Unit]:
        """Return the units of the set."""
        return units_of(self.layout, real.num_classes, ipc, self.batch)
