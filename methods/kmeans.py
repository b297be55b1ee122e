"""K-means: the image nearest to each k-means centroid of a class (DC-BENCH, Cui et al., NeurIPS 2022)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dd_bench.api import representatives

from ._coreset import FeatureCoreset


class KMeans(FeatureCoreset):
    """Cluster the embeddings of a class into `ipc` clusters and select the image nearest to each centroid.

    scikit-learn computes the centroids (k-means++, best of `restarts`). If one image is nearest to two centroids, the
    second centroid gets its nearest unused image. DC-BENCH calls this method "K-Center".
    """

    citation = "Cui et al., DC-BENCH: Dataset Condensation Benchmark, NeurIPS 2022"

    def __init__(self, *, teacher: dict[str, Any], restarts: int):
        """Take the training recipe of the feature network and the number of k-means restarts."""
        super().__init__(teacher=teacher)
        self.restarts = restarts

    def select(self, features: Tensor, ipc: int, seed: int) -> Tensor:
        """See `FeatureCoreset`."""
        return representatives(features, ipc, self.restarts, seed)
