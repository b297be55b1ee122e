"""INFER: inter-class compensators, one image added to a natural image of every class (Zhang et al., ICLR 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from dd_bench.api import CompensatedSet, DistillContext, RealSet, Shard, TeacherSpec, check_class_sizes

from ._recovery.base import Recovery
from ._recovery.engine import Engine


class INFER(Recovery):
    """Per natural set and teacher: Adam on one compensator `u`, which all classes share.

        K = floor(ipc C / (C + M)) natural sets: one random real image x_i of each of C classes y_i
        for each natural set, for each teacher f of M:
            u = 0
            for step in range(iterations):
                loss = CE(f(A(x + u)), y) + statistics * sum_l m_l (|var_l - running_var_l| + |mean_l - running_mean_l|)
                u = u - Adam(grad loss), at a rate that falls from lr_img to zero as a cosine

    The batch is all classes, so that the statistics are matched jointly; `A`, `var_l`, `mean_l` and `m_l` are those
    of `SRe2L`. Networks train on the K C natural images and on the K M C clamped sums `x_i + u`. A compensator costs
    as much of the budget as an image: K (C + M) <= ipc C. A natural set and a teacher draw all randomness by their
    name, so the result does not depend on which process computes them, or when.

    Deviations from the released code: compensators are stored as float16 and the sum is clamped when it is computed,
    where the code stores the clamped sum as JPEG; natural images are stored as 8-bit pixels.
    """

    citation = (
        "Zhang et al., Breaking Class Barriers: Efficient Dataset Distillation via Inter-Class Feature Compensator, "
        "ICLR 2025"
    )

    def check_teachers(self, real: RealSet, ipc: int, teachers: Sequence[TeacherSpec]) -> str | None:
        """See `Method`."""
        if reason := super().check_teachers(real, ipc, teachers):
            return reason
        c, m = real.num_classes, len(teachers)
        k = self.natural_sets(ipc, c, m)
        if k == 0:
            return (
                f"ipc={ipc} of {c} classes is {ipc * c} images, and one natural image of each class with a "
                f"compensator of each of {m} teachers is {c + m}. Use ipc={-(-(c + m) // c)} or more"
            )
        return check_class_sizes(real, ipc, k)

    @staticmethod
    def natural_sets(ipc: int, num_classes: int, teachers: int) -> int:
        """Returns K: natural sets that leave room for a compensator of each teacher, K (C + M) <= ipc C."""
        return ipc * num_classes // (num_classes + teachers)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> CompensatedSet:
        """See `Method`."""
        teachers = ctx.teachers_of(real)
        k, m = self.natural_sets(ipc, real.num_classes, len(teachers)), len(teachers)
        engines = [self.engine(real, [teacher], k * m * real.num_classes, ctx) for teacher in teachers]
        index = real.train.draw(k, ctx.generator("init")).T.contiguous()  # (K, C): a natural set a row
        units = {
            f"set{i}-teacher{j}": partial(self._compensator, engines[j], index[i], f"set{i}-teacher{j}")
            for i in range(k)
            for j in range(m)
        }
        shards = ctx.shards(units)
        compensators = torch.stack([shards[name]["compensator"] for name in units])  # (K M, c, h, w)
        return CompensatedSet.of(real, index.flatten(), compensators.unflatten(0, (k, m)))

    def _compensator(self, engine: Engine, index: Tensor, name: str, ctx: DistillContext) -> Shard:
        """Returns the `compensator` of the natural images `index (C,)`: float16 `(c, h, w)`."""
        train = engine.real.train
        natural, u = train.inputs(index), torch.zeros(1, *engine.real.shape, device=ctx.device)
        engine.optimise(u, lambda: natural + u, train.labels[index], name, ctx, clamped=False)
        return {"compensator": u[0].half()}
