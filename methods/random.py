"""Random: the baseline that every method must beat."""

from __future__ import annotations

from dd_bench.api import Context, Method, too_few_images
from dd_bench.data.dataset import RealSet
from dd_bench.distill.coreset import selected
from dd_bench.distill.init import random_index
from dd_bench.models.architecture import Architecture
from dd_bench.synthetic.base import SyntheticSet


class Random(Method):
    """Draws `ipc` training samples of each class, uniformly without replacement.

    At one seed these are the images from which every method with `init=real` starts.
    """

    modalities = ("image", "graph")
    citation = "uniform random selection"

    def unsupported(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        return super().unsupported(real, ipc, architecture) or too_few_images(real, ipc, ipc)

    def distill(self, real: RealSet, ipc: int, ctx: Context) -> SyntheticSet:
        """See `Method`."""
        return selected(real, random_index(real, ipc, ctx).flatten())
