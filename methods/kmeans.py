"""K-means: the image nearest to each centroid of the class (DC-BENCH, Cui et al., NeurIPS 2022)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dd_bench.api import representatives

from ._coreset import FeatureCoreset


class KMeans(FeatureCoreset):
    """Clusters the embeddings of a class into `ipc` groups and keeps the image nearest to each centroid.

    The centroids by scikit-learn (k-means++, best of `restarts`); an image nearest to two centroids is kept
    once, and the second takes its next nearest. DC-BENCH names this "K-Center"; the name here is what it is.
    """

    citation = "Cui et al., DC-BENCH: Dataset Condensation Benchmark, NeurIPS 2022"

    def __init__(self, *, teacher: dict[str, Any], restarts: int):
        """Takes the feature network's recipe and the number of k-means restarts."""
        super().__init__(teacher=teacher)
        self.restarts = restarts

    def select(self, features: Tensor, ipc: int, seed: int) -> Tensor:
        """See `FeatureCoreset`."""
        return representatives(features, ipc, self.restarts, seed)
