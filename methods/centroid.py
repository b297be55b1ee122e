"""Centroid: the real images whose features are nearest to the mean of their class, a baseline of linear probes."""

from __future__ import annotations

import torch

from dd_bench.api import (
    Architecture,
    DistillContext,
    RealSet,
    SyntheticSet,
    build_coreset,
    check_class_sizes,
)

from ._probing.base import Probing


class Centroid(Probing):
    """Select the `ipc` images of each class whose features are nearest to their mean, by L2 distance.

    The features are those of the run's teacher without its last layer. This is the baseline *centroids* of LGM, which
    has one image per class; more images are a choice of this implementation.
    """

    citation = (
        "Cazenavette, Torralba and Sitzmann, Dataset Distillation for Pre-Trained Self-Supervised Vision Models, "
        "NeurIPS 2025 (baseline)"
    )
    deterministic = True

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        return super().check_dataset(real, ipc, architecture) or check_class_sizes(real, ipc, ipc)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> SyntheticSet:
        """See `Method`."""
        backbone, chosen = ctx.backbone_of(real), []
        for c in range(real.num_classes):
            index = real.train.of_class(c)
            features = backbone.split_features(real.train, index).double()
            distance = (features - features.mean(0)).square().sum(1)
            chosen.append(index[distance.argsort(stable=True)[:ipc]])
        return build_coreset(real, torch.cat(chosen))
