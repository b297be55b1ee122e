"""RDED: realistic patches of real images, without optimisation (Sun et al., CVPR 2024)."""

from __future__ import annotations

from typing import Any, ClassVar

from dd_bench.api import Architecture, DistillContext, ImageSet, RealSet, class_labels, parse

from ._recovery.base import Guided
from ._recovery.patches import Patches, composites


class RDED(Guided):
    """Per class: the patches that an observer finds most realistic, `factor^2` of them an image.

        for each class c:
            of `images` random real images, cut `crops` square patches each, 8 to 100 % of the area
            realism of a patch = -CE(observer(patch), c); keep the best patch of each image
            of those, the best ipc factor^2 fill the images: patch number k ipc + i is cell k of image i

    The observer is the run's first teacher. SRe2L starts from the same images with `init=patches`. A class draws all
    randomness by its name, so the result does not depend on which process computes it, or when.

    Deviations from the released code: images are stored as 8-bit pixels, not JPEG; the padding around a patch that is
    judged is the mean colour.
    """

    citation = (
        "Sun et al., On the Diversity and Realism of Distilled Dataset: An Efficient Dataset Distillation Paradigm, "
        "CVPR 2024"
    )
    smoke: ClassVar[dict[str, Any]] = {"patches.images": 4, "patches.crops": 2}

    def __init__(self, *, patches: dict[str, Any]):
        """Takes the keys of `conf/method/rded.yaml`, which describes them."""
        self.patches = parse(Patches, patches, "method.patches")

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        return super().check_dataset(real, ipc, architecture) or self.patches.check(real, ipc)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> ImageSet:
        """See `Method`."""
        observer = ctx.teachers_of(real)[0]
        pixels = composites(real, ipc, observer, self.patches, ctx)  # (k, ipc, c, h, w)
        return ImageSet.of(real, pixels.flatten(0, 1), class_labels(real, ipc, pixels.device), "pixel")
