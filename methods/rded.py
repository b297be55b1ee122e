"""RDED: images composed of realistic patches of real images, without optimisation (Sun et al., CVPR 2024)."""

from __future__ import annotations

from typing import Any, ClassVar

from dd_bench.api import Architecture, DistillContext, ImageSet, RealSet, class_labels, parse

from ._recovery.guided import Guided
from ._recovery.patches import Patches, composites


class RDED(Guided):
    """Compose each image from `factor^2` patches of its class that an observer network rates as most realistic.

        for each class c:
            cut `crops` square patches, with 8 to 100 % of the area, from each of `images` random real images
            realism of a patch = -CE(observer(patch), c); select the best patch of each image
            select the best ipc * factor^2 of these patches; patch number k * ipc + i is cell k of image i

    The observer is the run's first teacher. SRe2L starts from the same images with `init=patches`. The random numbers
    of a class depend only on its index and the run's seed. The result therefore does not depend on which process
    computes it, or when.

    Deviations from the released code: Images are stored as 8-bit pixels instead of JPEG, and rounded to the nearest
    value. The released code rounds down, which darkens images by half a step on average. To rate a patch, it is padded
    with the mean colour of the dataset. The released code normalises all datasets with ImageNet's statistics, so that
    its padding has ImageNet's mean colour.
    """

    citation = (
        "Sun et al., On the Diversity and Realism of Distilled Dataset: An Efficient Dataset Distillation Paradigm, "
        "CVPR 2024"
    )
    smoke: ClassVar[dict[str, Any]] = {"patches.images": 4, "patches.crops": 2}

    def __init__(self, *, patches: dict[str, Any]):
        """See `conf/method/rded.yaml` for the arguments."""
        self.patches = parse(Patches, patches, "method.patches")

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        return super().check_dataset(real, ipc, architecture) or self.patches.check(real, ipc)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> ImageSet:
        """See `Method`."""
        observer = ctx.teachers_of(real)[0]
        pixels = composites(real, ipc, observer, self.patches, ctx)  # (k, ipc, c, h, w)
        return ImageSet.of(real, pixels.flatten(0, 1), class_labels(real, ipc, pixels.device), "pixel")
