"""INFER: inter-class compensators, each added to one natural image of every class (Zhang et al., ICLR 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from dd_bench.api import (
    CompensatedSet,
    DistillContext,
    ImageSet,
    RealSet,
    Shard,
    SyntheticSet,
    TeacherSpec,
    check_class_sizes,
)

from ._recovery.base import Recovery
from ._recovery.images import Images


class INFER(Recovery):
    """For each natural set and teacher, optimise one compensator `u` with Adam; all classes share the compensator.

        K = floor(ipc C / (C + M)) natural sets: one random real image x_i of each of C classes y_i
        for each natural set, for each f of the M teachers:
            u = 0
            for step in range(iterations):
                loss = CE(f(A(x + u)), y) + statistics * sum_l m_l (|var_l - running_var_l| + |mean_l - running_mean_l|)
                u = u - Adam(grad loss), with a cosine learning rate from lr_img to zero

    With `base=FOLDER`, the natural images are the images of another set instead: the i-th image of every class forms
    natural set i, and each compensated image has the (hard or soft) label of its natural image. This is the paper's use
    as a plug-in. The set stores both the images and the compensators, and both count for its IPC.

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

    def check_base(
        self, base: SyntheticSet, real: RealSet, ipc: int, teachers: Sequence[TeacherSpec]
    ) -> str | None:
        """See `Method`. The base set must have as many images of each class as there are natural sets."""
        if reason := super().check_teachers(real, ipc, teachers):
            return reason
        if not isinstance(base, ImageSet) or base.factor > 1 or base.canvas > 1:
            found = f"factor={base.factor}, canvas={base.canvas}" if isinstance(base, ImageSet) else base.kind
            return (
                f"`base` must be a set of images that networks are trained on as they are stored, got {found}"
            )
        c, m, counts = real.num_classes, len(teachers), base.stored_samples()
        s, k = int(counts[0]), self.natural_sets(ipc, c, m)
        if bool((counts != s).any()):
            return f"`base` must have equally many images of each class, got {counts.tolist()}"
        if s != k:
            fitting = f"a base set that was made with ipc={k}, or run with " if k else ""
            return (
                f"with ipc={ipc}, {c} classes and {m} teachers, `base` must have {k} images of each class, because "
                f"compensators count as images too, got {s}. Use {fitting}ipc={-(-s * (c + m) // c)}"
            )
        return None

    @staticmethod
    def natural_sets(ipc: int, num_classes: int, teachers: int) -> int:
        """Return the number of natural sets for C classes and M teachers: the largest K with K (C + M) <= ipc C."""
        return ipc * num_classes // (num_classes + teachers)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> CompensatedSet:
        """See `Method`."""
        teachers = ctx.teachers_of(real)
        k, m = self.natural_sets(ipc, real.num_classes, len(teachers)), len(teachers)
        engine = self.engine(real)
        losses = [self.in_turn(real, [teacher], k * m * real.num_classes, ctx) for teacher in teachers]
        natural = self._natural(real, k, ctx)
        inputs, labels = natural.materialise_lazily(ctx.device)
        rows = torch.arange(len(labels), device=ctx.device).unflatten(0, (k, -1))  # (K, C)

        def compensator(i: int, j: int, ctx: DistillContext) -> Shard:
            u = torch.zeros(1, *real.shape, device=ctx.device)
            engine.optimise(
                Compensated(inputs[rows[i]], u, labels[rows[i]]), losses[j], f"set{i}-teacher{j}", ctx
            )
            return {"compensator": u[0].half()}

        units = {f"set{i}-teacher{j}": partial(compensator, i, j) for i in range(k) for j in range(m)}
        shards = ctx.shards(units)
        compensators = torch.stack([shards[name]["compensator"] for name in units])  # (K M, c, h, w)
        return CompensatedSet.on(natural, compensators.unflatten(0, (k, m)))

    def _natural(self, real: RealSet, k: int, ctx: DistillContext) -> ImageSet:
        """Return K natural sets of C images, grouped by set: random real images, or the images of `ctx.base`.

        The class of an image with a soft label is the most probable one.
        """
        if ctx.base is None:
            return ImageSet.coreset(real, real.train.draw(k, ctx.generator("init")).T.flatten())
        assert isinstance(ctx.base, ImageSet), "check_base rejects other sets"
        images, labels, source = ctx.base.images, ctx.base.labels, ctx.base.source
        classes = labels if labels.ndim == 1 else labels.argmax(1)
        order = classes.argsort(stable=True).view(-1, k).T.flatten()  # (C, K) to (K, C)
        return replace(
            ctx.base,
            images=images[order],
            labels=labels[order],
            source=None if source is None else tuple(source[i] for i in order.tolist()),
            whole=False,
        )


class Compensated(Images):
    """Natural images `(b, c, h, w)` with one optimised compensator `u (1, c, h, w)`, which is not clamped."""

    def __init__(self, natural: Tensor, u: Tensor, y: Tensor):
        """Take the natural images, the compensator and the labels `(b,)` or `(b, k)`."""
        super().__init__(u, y)
        self.natural = natural

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """See `Images`."""
        return self.natural + self.x, self.y

    def clamp(self, black: Tensor, white: Tensor) -> None:
        """Leave the compensator as it is."""
