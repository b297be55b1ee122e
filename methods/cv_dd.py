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
            f_1 ... f_m = the members of committee number s; the committees are all groups of m teachers, in the
                lexicographic order of their positions in `teacher=[...]`, again from the first one after the last
            w = softmax(prior / committee_temperature) over the members, or 1 / m
            x = composites of real patches
            for step in range(iterations):
                loss = sum_j w_j (CE(f_j(A(x)), y) + statistics * L_BN(f_j, A(x)))
                x = clamp(x - Adam(grad loss)), with a cosine learning rate from lr_img to zero

    `A` and L_BN are those of `SRe2L`. The prior of a teacher is the accuracy, in percent, of a network that is trained
    on images recovered from this teacher alone. Measure it on validation data, with `method=sre2l_pp` and one teacher,
    `dataset.val_fraction=0.1` and `protocol.selection=best_on_val`. With `committee=cycle`, each step uses one member,
    in turn, without weights.

    The released code has all ten pairs of five teachers in this order at IPC 10. At IPC 1 it has one fixed pair, which
    is not the first one: `method.committees`, see the experiments `paper/*/cv_dd_ipc1`.

    The paper's labels are the mean of the logits of all teachers, weighted by softmax(prior / 10), with BatchNorm
    statistics of the batch: `protocol.labels.teacher_mode=train` and `protocol.labels.teacher_weights`.

    Deviations from the released code: The patches of the initial images are cut as in RDED; the paper's were not found.
    At IPC 50, the released code draws a random pair for each slot; here the pairs take turns. It labels each half of a
    batch of 16 alone, and networks train on these halves with accumulated gradients, so its BatchNorm statistics are of
    8 images; here they are of the whole batch. Images are stored as 8-bit pixels, rounded to the nearest value.
    """

    citation = "Cui et al., Dataset Distillation via Committee Voting, arXiv 2501.07575, 2025"
    smoke: ClassVar[dict[str, Any]] = {**ImageRecovery.smoke, "members": 1}

    def __init__(
        self,
        *,
        committee: Literal["sum", "cycle"],
        members: int,
        committees: Sequence[Sequence[int]] | None,
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
        if committees is not None and not (
            committees and all(len(set(group)) == members == len(group) for group in committees)
        ):
            raise ValueError(
                f"method.committees must be null or groups of {members} different teachers (method.members), got "
                f"{[list(group) for group in committees]}. Example: method.committees=[{list(range(members))}]"
            )
        super().__init__(**kwargs)
        self.committee, self.members, self.weights = committee, members, weights
        self.committees = committees
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
        positions = [j for group in self.committees or () for j in group]
        if positions and not 0 <= min(positions) <= max(positions) < len(teachers):
            return (
                f"method.committees must contain positions of teachers, 0 to {len(teachers) - 1}, got "
                f"{[list(group) for group in self.committees or ()]}. "
                f"Example: method.committees=[{list(range(self.members))}]"
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
        groups = self.committees or committees(len(teachers), self.members)
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
