"""INFER: inter-class compensators, each added to one natural image of every class (Zhang et al., ICLR 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from dd_bench.api import CompensatedSet, DistillContext, RealSet, Shard, TeacherSpec, check_class_sizes

from ._recovery.base import Recovery
from ._recovery.engine import Engine


class INFER(Recovery):
    """For each natural set and teacher, optimise one compensator `u` with Adam; all classes share the compensator.

        K = floor(ipc C / (C + M)) natural sets: one random real image x_i of each of C classes y_i
        for each natural set, for each f of the M teachers:
            u = 0
            for step in range(iterations):
                loss = CE(f(A(x + u)), y) + statistics * sum_l m_l (|var_l - running_var_l| + |mean_l - running_mean_l|)
                u = u - Adam(grad loss), with a cosine learning rate from lr_img to zero

    The batch contains one image of every class, so that the statistics are matched over all classes. `A`, `var_l`,
    `mean_l` and `m_l` are those of `SRe2L`. Networks train on the K C natural images and on the K M C clamped sums
    `x_i + u`. A compensator counts as one image of the budget: K (C + M) <= ipc C. The random numbers of a compensator
    depend only on its name and the run's seed. The result therefore does not depend on which process computes it, or
    when.

    Deviations from the released code: Compensators are stored as float16, and the sum is clamped when it is computed.
    The released code rounds the clamped sum down to 8 bits and stores it as JPEG; here it is not rounded. Natural
    images are stored as 8-bit pixels.
    """

    kinds = ("compensated",)
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
            minimum = -(-(c + m) // c)
            return (
                f"ipc must be >= {minimum} for one natural image of each of {c} classes and a compensator of each of "
                f"{m} teachers, got {ipc}. Example: ipc={minimum}"
            )
        return check_class_sizes(real, ipc, k)

    @staticmethod
    def natural_sets(ipc: int, num_classes: int, teachers: int) -> int:
        """Return the number of natural sets for C classes and M teachers: the largest K with K (C + M) <= ipc C."""
        return ipc * num_classes // (num_classes + teachers)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> CompensatedSet:
        """See `Method`."""
        teachers = ctx.teachers_of(real)
        k, m = self.natural_sets(ipc, real.num_classes, len(teachers)), len(teachers)
        engines = [self.engine(real, [teacher], k * m * real.num_classes, ctx) for teacher in teachers]
        index = real.train.draw(k, ctx.generator("init")).T.contiguous()  # (K, C), one natural set per row
        units = {
            f"set{i}-teacher{j}": partial(self._compensator, engines[j], index[i], f"set{i}-teacher{j}")
            for i in range(k)
            for j in range(m)
        }
        shards = ctx.shards(units)
        compensators = torch.stack([shards[name]["compensator"] for name in units])  # (K M, c, h, w)
        return CompensatedSet.of(real, index.flatten(), compensators.unflatten(0, (k, m)))

    def _compensator(self, engine: Engine, index: Tensor, name: str, ctx: DistillContext) -> Shard:
        """Return the `compensator`, float16 `(c, h, w)`, of the natural images `index`, int64 `(classes,)`."""
        train = engine.real.train
        natural, u = train.inputs(index), torch.zeros(1, *engine.real.shape, device=ctx.device)
        engine.optimise(u, lambda: natural + u, train.labels[index], name, ctx, clamped=False)
        return {"compensator": u[0].half()}
