"""CV-DD: recovery with a committee of teachers, weighted by their prior performance (arXiv 2501.07575)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor

from dd_bench.api import DistillContext, HookedTeacher, ImageSet, RealSet, TeacherSpec

from ._arguments import check_at_least, check_choice
from ._recovery.base import ImageRecovery, recovered
from ._recovery.committee import Committee, committees, prior_weights
from ._recovery.images import Images
from ._recovery.layout import Unit
from ._recovery.objective import InTurn, Objective


class CVDD(ImageRecovery):
    """SRe2L++ whose loss is a weighted sum over a committee of teachers; each slot has another committee.

        for each slot s and chunk of classes:
            f_1 ... f_m = the members of committee number s; the committees are all groups of m teachers
            w = softmax(prior / committee_temperature) over the members, or 1 / m
            x = composites of real patches
            for step in range(iterations):
                loss = sum_j w_j (CE(f_j(A(x)), y) + statistics * L_BN(f_j, A(x)))
                x = clamp(x - Adam(grad loss)), with a cosine learning rate from lr_img to zero

    `A` and L_BN are those of `SRe2L`. The prior of a teacher is the accuracy, in percent, of a network that is trained
    on images recovered from this teacher alone. Measure it on validation data, with `method=sre2l_pp` and one teacher,
    `dataset.val_fraction=0.1` and `protocol.selection=best_on_val`. Committees with a larger sum of priors come first.
    With `committee=cycle`, each step uses one member, in turn, without weights.

    The paper's labels are the mean of the logits of all teachers, weighted in the same way, with BatchNorm statistics
    of the batch: `protocol.labels.teacher_mode=train` and `protocol.labels.teacher_weights`.

    Deviations from the released code: The patches of the initial images are cut as in RDED; the paper's were not found.
    The order of the committees is ours. Images are stored as 8-bit pixels, rounded to the nearest value.
    """

    citation = "Cui et al., Dataset Distillation via Committee Voting, arXiv 2501.07575, 2025"
    smoke: ClassVar[dict[str, Any]] = {**ImageRecovery.smoke, "members": 1}

    def __init__(
        self,
        *,
        committee: Literal["sum", "cycle"],
        members: int,
        weights: Literal["equal", "prior"],
        prior: Sequence[float] | None,
        committee_temperature: float,
        **kwargs: Any,
    ):
        """See `conf/method/cv_dd.yaml` for the arguments; `kwargs` are those of `ImageRecovery`.

        Raises:
            ValueError: A value is unknown or out of range.
        """
        check_choice("committee", committee, ("sum", "cycle"))
        check_choice("weights", weights, ("equal", "prior"))
        check_at_least(1, members=members)
        if not committee_temperature > 0:
            raise ValueError(
                f"method.committee_temperature must be > 0, got {committee_temperature}. "
                "Example: method.committee_temperature=5.0"
            )
        super().__init__(**kwargs)
        self.committee, self.members, self.weights = committee, members, weights
        self.prior, self.committee_temperature = prior, committee_temperature

    def check_teachers(self, real: RealSet, ipc: int, teachers: Sequence[TeacherSpec]) -> str | None:
        """See `Method`."""
        if reason := super().check_teachers(real, ipc, teachers):
            return reason
        if self.members > len(teachers):
            return (
                f"method.members must be <= the number of teachers, {len(teachers)}, got {self.members}. "
                f"Example: method.members={len(teachers)}, or more teachers: teacher=[convnet_bn,resnet18]"
            )
        priors = None if self.prior is None else len(self.prior)
        if self.weights == "prior" and priors != len(teachers):
            return (
                f"method.weights=prior requires one number in method.prior for each of {len(teachers)} teachers, got "
                f"{'none' if priors is None else priors}. Use method.weights=equal, or the accuracies in percent, "
                f"e.g. method.prior={[60.0] * len(teachers)}"
            )
        return None

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> ImageSet:
        """See `Method`."""
        teachers = ctx.teachers_of(real)
        hooked = [HookedTeacher(teacher) for teacher in teachers] if self.iterations else []
        groups = committees(len(teachers), self.members, self.prior if self.weights == "prior" else None)
        engine, start = self.engine(real), self.start(real, ipc, teachers[0], ctx)

        def recover(unit: Unit, ctx: DistillContext) -> Tensor:
            group = groups[unit.number % len(groups)] if hooked else ()
            loss = self._loss(real, ipc, [hooked[j] for j in group], self._weights(group), ctx)
            images = Images(start(unit).clone(), unit.labels(ctx.device))
            return engine.optimise(images, loss, unit.name, ctx)

        return recovered(real, ipc, self.units(real, ipc), recover, ctx)

    def _weights(self, group: Sequence[int]) -> list[float]:
        """Return the weights of the members of a committee."""
        if self.weights == "equal" or self.prior is None:
            return [1 / max(1, len(group))] * len(group)
        return prior_weights([self.prior[j] for j in group], self.committee_temperature)

    def _loss(
        self,
        real: RealSet,
        ipc: int,
        members: Sequence[HookedTeacher],
        weights: Sequence[float],
        ctx: DistillContext,
    ) -> Objective:
        """Return the loss of a committee."""
        compiled = self.compiles(real, ipc * real.num_classes, ctx)
        autocast = ctx.runtime.autocast
        if self.committee == "cycle":
            return InTurn(members, self.statistics, self.first_layer, autocast=autocast, compiled=compiled)
        return Committee(
            members, weights, self.statistics, self.first_layer, autocast=autocast, compiled=compiled
        )
