"""Random: the baseline that every method must beat."""

from __future__ import annotations

from dd_bench.api import (
    Architecture,
    DistillContext,
    Method,
    RealSet,
    SyntheticSet,
    build_coreset,
    check_class_sizes,
    random_index,
)


class Random(Method):
    """Draw `ipc` training samples of each class uniformly without replacement.

    With the same seed, methods with `init=real` start from the images that this method selects.
    """

    modalities = ("image", "graph", "node")
    citation = "uniform random selection"

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        return super().check_dataset(real, ipc, architecture) or check_class_sizes(real, ipc, ipc)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> SyntheticSet:
        """See `Method`."""
        return build_coreset(real, random_index(real, ipc, ctx).flatten())
