"""Loss of WMDD and LPLD: cross-entropy, BatchNorm statistics of classes, and the distance to feature atoms."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dd_bench.api import DistillContext, HookedTeacher, ImageSet, RealSet, Teacher
from dd_bench.methods._arguments import check_choice

from .base import ImageRecovery, recovered
from .class_statistics import ClassTeacher, class_statistics
from .images import Images
from .layout import Unit
from .objective import Objective, Parts, compiled_loss, layer_weights

StatisticsOf = Literal["all", "class"]
STATISTICS_OF: tuple[StatisticsOf, ...] = ("all", "class")


class ClassRecovery(ImageRecovery):
    """Base class of the methods that match statistics class by class."""

    def __init__(self, *, statistics_of: StatisticsOf, **kwargs: Any):
        """See `conf/method/wmdd.yaml` for the arguments; `kwargs` are those of `ImageRecovery`.

        Raises:
            ValueError: A value is unknown or out of range.
        """
        check_choice("statistics_of", statistics_of, STATISTICS_OF)
        super().__init__(**kwargs)
        self.statistics_of = statistics_of

    def prepare(self, real: RealSet, ctx: DistillContext) -> None:
        """Train the teachers, and compute the statistics of the real images of each class."""
        teacher = ctx.teachers_of(real)[0]
        if self.iterations and self.statistics_of == "class":
            class_statistics(real, teacher, ctx)

    def match(
        self,
        real: RealSet,
        ipc: int,
        teacher: Teacher,
        ctx: DistillContext,
        *,
        ce_weight: float = 1.0,
        atoms: Tensor | None = None,
    ) -> ImageSet:
        """Return the images that minimise `ClassMatching`.

        Args:
            real: the real set.
            ipc: images per class.
            teacher: the teacher.
            ctx: context of the run.
            ce_weight: weight of the cross-entropy.
            atoms: atom of each image `(k, ipc, d)`, or None.
        """
        engine, start = self.engine(real), self.start(real, ipc, teacher, ctx)
        hooked = self._hooked(real, teacher, ctx) if self.iterations else None
        compiled = self.compiles(real, ipc * real.num_classes, ctx)

        def recover(unit: Unit, ctx: DistillContext) -> Tensor:
            x, y = start(unit).clone(), unit.labels(ctx.device)
            if hooked is None:
                return x
            loss = ClassMatching(
                hooked,
                y[:: len(unit.slots)],
                None if atoms is None else unit.of(atoms),
                ce_weight=ce_weight,
                weight=self.statistics,
                first_layer=self.first_layer,
                autocast=ctx.runtime.autocast,
                compiled=compiled,
            )
            return engine.optimise(Images(x, y), loss, unit.name, ctx)

        return recovered(real, ipc, self.units(real, ipc), recover, ctx)

    def _hooked(self, real: RealSet, teacher: Teacher, ctx: DistillContext) -> HookedTeacher:
        """Return a teacher that measures the BatchNorm distances of all images together, or class by class."""
        if self.statistics_of == "all":
            return HookedTeacher(teacher)
        return ClassTeacher(teacher, class_statistics(real, teacher, ctx))


class ClassMatching(Objective):
    """ce_weight CE + weight sum_l m_l d_l + |F(x) - B|, where d_l are BatchNorm distances of all images or of classes.

    The last term is optional. F(x) is the embedding of the batch, and row i of B is the atom of image i. The norm is
    that of the whole matrix, not squared and not averaged.
    """

    def __init__(
        self,
        teacher: HookedTeacher,
        classes: Tensor,
        atoms: Tensor | None,
        *,
        ce_weight: float,
        weight: float,
        first_layer: float,
        autocast: bool,
        compiled: bool,
    ):
        """Create the loss of a unit.

        Args:
            teacher: the teacher.
            classes: classes of the unit, int64 `(m,)`; the batch has equally many images of each, sorted by class.
            atoms: atom of each image, `(b, d)`, or None.
            ce_weight: weight of the cross-entropy.
            weight: weight of the BatchNorm loss.
            first_layer: factor of `weight` at the first layer.
            autocast: whether to compute in bfloat16.
            compiled: whether to compile the loss.
        """
        self.teacher, self.classes, self.atoms = teacher, classes, atoms
        self.layers = layer_weights(teacher, first_layer)
        loss = partial(class_matching_loss, ce_weight=ce_weight, weight=weight, autocast=autocast)
        self._loss = compiled_loss(loss, 1) if compiled else loss

    def __call__(self, step: int, x: Tensor, y: Tensor) -> Parts:
        """See `Objective`."""
        if isinstance(self.teacher, ClassTeacher):
            self.teacher.batch["classes"] = self.classes
        loss, distances = self._loss(self.teacher, x, y, self.layers, self.atoms)
        distances = distances.detach()
        return Parts(loss, (self.layers * distances).sum(), self.teacher.teacher.norms, distances)


def class_matching_loss(
    teacher: HookedTeacher,
    x: Tensor,
    y: Tensor,
    layers: Tensor,
    atoms: Tensor | None,
    *,
    ce_weight: float,
    weight: float,
    autocast: bool,
) -> tuple[Tensor, Tensor]:
    """Return the loss of images `x (b, c, h, w)` with classes `y (b,)`, and the distance at each layer `(layers,)`."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
        features, logits, distances = teacher.with_embedding(x)
    loss = ce_weight * F.cross_entropy(logits, y) + weight * (layers * distances).sum()
    if atoms is not None:
        loss = loss + torch.linalg.vector_norm(features - atoms)
    return loss, distances
