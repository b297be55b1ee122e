"""Neighbours: the real images nearest to the images of another set, a baseline of linear probes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dd_bench.api import (
    Architecture,
    DistillContext,
    ImageSet,
    RealSet,
    SyntheticSet,
    TeacherSpec,
    build_coreset,
    check_backbone,
    check_class_sizes,
    nearest_unused,
)

from ._probing.base import Probing


class Neighbours(Probing):
    """Replace each image of the set `base=FOLDER` by the nearest real image of its class, by L2 distance of features.

    The features are those of the run's teacher without its last layer. The images of a class are processed in their
    stored order, and each real image is selected at most once. This is the baseline *neighbours* of LGM, which has one
    image per class. It shows whether the distilled images contain more than the real images that resemble them most.
    """

    citation = (
        "Cazenavette, Torralba and Sitzmann, Dataset Distillation for Pre-Trained Self-Supervised Vision Models, "
        "NeurIPS 2025 (baseline)"
    )
    deterministic = True

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        return super().check_dataset(real, ipc, architecture) or check_class_sizes(real, ipc, ipc)

    def check_teachers(self, real: RealSet, ipc: int, teachers: Sequence[TeacherSpec]) -> str | None:
        """See `Method`. Called for runs without a base set."""
        return "Neighbours requires the set whose images it replaces. Use base=FOLDER"

    def check_base(
        self, base: SyntheticSet, real: RealSet, ipc: int, teachers: Sequence[TeacherSpec]
    ) -> str | None:
        """See `Method`. The base set must have `ipc` images of each class with class labels."""
        if not isinstance(base, ImageSet) or base.factor > 1 or base.canvas > 1:
            found = f"factor={base.factor}, canvas={base.canvas}" if isinstance(base, ImageSet) else base.kind
            return f"`base` must be a set of images that are used as they are stored, got {found}"
        if set(counts := base.stored_samples().tolist()) != {ipc}:
            fitting = f"Example: ipc={counts[0]}" if len(set(counts)) == 1 else "Use another base set"
            return f"`base` must have ipc={ipc} images of each class, got {counts}. {fitting}"
        return check_backbone(teachers)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> SyntheticSet:
        """See `Method`.

        Raises:
            ValueError: there is no base set.
        """
        if not isinstance(ctx.base, ImageSet):
            raise ValueError(self.check_teachers(real, ipc, ctx.teachers))
        backbone = ctx.backbone_of(real)
        images, labels = ctx.base.network_inputs(ctx.device)
        classes = labels if labels.ndim == 1 else labels.argmax(1)
        features, chosen = backbone.features_of(images).double(), []
        for c in range(real.num_classes):
            index = real.train.of_class(c)
            candidates = backbone.split_features(real.train, index).double()
            chosen.append(index[nearest_unused(features[classes == c], candidates)])
        return build_coreset(real, torch.cat(chosen))
