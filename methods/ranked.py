"""Ranked: whole real images that a teacher finds easy, medium or hard (the start of DELT, Shen et al., CVPR 2025)."""

from __future__ import annotations

from typing import Any

from dd_bench.api import Architecture, DistillContext, RealSet, SyntheticSet, build_coreset, parse

from ._recovery.guided import Guided
from ._recovery.ranked import Rank, ranked_images


class Ranked(Guided):
    """Rank the real images of a class by the probability of the class under a teacher, and take `ipc` of them.

        for each class c:
            rank the images by p(c | image) under the first teacher of the run
            easy: take the ipc most probable ones; hard: the least probable ones
            medium: take the image at rank ceil(n / 2), then its neighbours on both sides in turn

    A control: DELT starts from these images, FADRM and CIM can start from them, and a method that optimises them should
    be better than them. `easiest` ranks by a network of its own, in the same way.

    Deviations: DELT's ranking of CIFAR normalises images with ImageNet's statistics, here with the dataset's.
    """

    citation = (
        "Shen et al., DELT: A Simple Diversity-driven EarlyLate Training for Dataset Distillation, CVPR 2025 "
        "(control)"
    )
    deterministic = True

    def __init__(self, *, rank: dict[str, Any]):
        """See `conf/method/ranked.yaml` for the arguments."""
        self.rank = parse(Rank, rank, "method.rank")

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        return super().check_dataset(real, ipc, architecture) or self.rank.check(real, ipc, ipc)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> SyntheticSet:
        """See `Method`."""
        observer = ctx.teachers_of(real)[0]
        return build_coreset(real, ranked_images(real, ipc, observer, self.rank, ctx).flatten())
