"""FADRM: recovery in blocks, between which a share of the initial real image is put back (Cui et al., NeurIPS 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import Architecture, DistillContext, ImageSet, RealSet, TeacherSpec, parse

from ._arguments import check_choice
from ._recovery.base import ImageRecovery, recovered
from ._recovery.layout import Unit
from ._recovery.residual import Residual, ResidualImages, resized
from ._recovery.start import TEACHERS


class FADRM(ImageRecovery):
    """Optimise composites of real patches p in blocks, at several resolutions.

        x = resize(p, sizes[0])
        for b in range(number of blocks):
            if b > 0: x = alpha resize(x, sizes[b]) + (1 - alpha) resize(p, sizes[b]), and Adam starts again
            for step in the iterations of block b:
                loss = CE(f(A(x)), y) + statistics * sum_l m_l (|var_l - running_var_l| + |mean_l - running_mean_l|)
                x = clamp(x - Adam(grad loss)), with a cosine learning rate from lr_img to zero over all blocks

    `A` and `m_l` are those of `SRe2L`. With `teachers=cycle`, each step uses the next of the run's teachers: this is
    FADRM+ (`method=fadrm_plus`).

    Deviations from the released code: Its initial images are files for download, and how they were made is not in the
    repository. Here they are RDED's composites of patches from the middle of the ranking (`patches.pick=medium`). A
    teacher without BatchNorm, such as the AlexNet that FADRM+ uses at one image per class of ImageNet-1K, is not
    supported. Images are resized bilinearly.
    """

    citation = (
        "Cui et al., FADRM: Fast and Accurate Data Residual Matching for Dataset Distillation, NeurIPS 2025"
    )
    smoke: ClassVar[dict[str, Any]] = {**ImageRecovery.smoke, "residual.blocks": [1, 1]}

    def __init__(self, *, residual: dict[str, Any], teachers: str, **kwargs: Any):
        """See `conf/method/fadrm.yaml` for the arguments; `kwargs` are those of `ImageRecovery`.

        Raises:
            ValueError: A value is unknown or out of range.
        """
        check_choice("teachers", teachers, TEACHERS)
        super().__init__(**kwargs)
        self.residual, self.teachers = parse(Residual, residual, "method.residual"), teachers
        if reason := self.residual.check(self.iterations):
            raise ValueError(reason)

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture):
            return reason
        return self.residual.check_size(real.shape[1])

    def check_teachers(self, real: RealSet, ipc: int, teachers: Sequence[TeacherSpec]) -> str | None:
        """See `Method`. Each teacher must accept images of all sizes."""
        if reason := super().check_teachers(real, ipc, teachers):
            return reason
        for size in set(self.residual.sizes or ()) - {real.shape[1]}:
            x = resized(torch.zeros(1, *real.shape), size)
            for spec in teachers:
                try:
                    spec.architecture.fresh(0, torch.device("cpu")).eval()(x)
                except RuntimeError:
                    return (
                        f"method.residual.sizes={list(self.residual.sizes or ())} requires teachers for images of all "
                        f"these sizes, but teacher {spec.name} ({spec.architecture.title}) does not accept images of "
                        f"{size} pixels. Use method.residual.sizes=null, or a network with global average pooling"
                    )
        return None

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> ImageSet:
        """See `Method`."""
        teachers = ctx.teachers_of(real)
        guides = teachers if self.teachers == "cycle" else teachers[:1]
        shapes = len(set(self.residual.sizes or (0,)))
        loss = self.in_turn(real, guides, ipc * real.num_classes, ctx, shapes)
        engine, start = self.engine(real), self.start(real, ipc, teachers[0], ctx)

        def recover(unit: Unit, ctx: DistillContext) -> Tensor:
            images = ResidualImages(start(unit), unit.labels(ctx.device), self.residual, self.iterations)
            return engine.optimise(images, loss, unit.name, ctx)

        return recovered(real, ipc, self.units(real, ipc), recover, ctx)
