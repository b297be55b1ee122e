"""K-means: the image nearest to each k-means centroid of a class (DC-BENCH, Cui et al., NeurIPS 2022)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from dd_bench.api import (
    Architecture,
    DistillContext,
    Method,
    RealSet,
    SyntheticSet,
    build_coreset,
    check_class_sizes,
    class_embeddings,
    representatives,
    untrained_feature_network,
)

from ._arguments import check_choice
from ._coreset import FeatureCoreset


class KMeans(FeatureCoreset):
    """Cluster the embeddings of a class into `ipc` clusters and select the image nearest to each centroid.

    scikit-learn computes the centroids (k-means++, best of `restarts`). If one image is nearest to two centroids, the
    second centroid gets its nearest unused image. DC-BENCH calls this method "K-Center".
    """

    citation = "Cui et al., DC-BENCH: Dataset Condensation Benchmark, NeurIPS 2022"

    def __init__(self, *, teacher: dict[str, Any], feature_network: str, restarts: int):
        """Take the arguments of `FeatureCoreset` and the number of k-means restarts."""
        super().__init__(teacher=teacher, feature_network=feature_network)
        self.restarts = restarts

    def select(self, features: Tensor, ipc: int, seed: int) -> Tensor:
        """See `FeatureCoreset`."""
        return representatives(features, ipc, self.restarts, seed)


class UntrainedKMeans(Method):
    """K-means without training: on the pixels of the images, or on the embeddings of a random network.

    The control of `kmeans`: it shows whether k-means needs the features of a trained network. The random network has
    the initial weights of the feature network of `kmeans`.
    """

    citation = "Cui et al., DC-BENCH: Dataset Condensation Benchmark, NeurIPS 2022 (control)"

    def __init__(self, *, features: Literal["pixels", "random"], restarts: int):
        """Take the features, `pixels` or those of a `random` network, and the number of k-means restarts.

        Raises:
            ValueError: `features` is neither of these.
        """
        check_choice("features", features, ("pixels", "random"))
        self.features, self.restarts = features, restarts

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        return super().check_dataset(real, ipc, architecture) or check_class_sizes(real, ipc, ipc)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> SyntheticSet:
        """See `Method`."""
        net = None
        if self.features == "random":
            net = untrained_feature_network(ctx.architecture, 0, ctx).eval()
        chosen = []
        for c in range(real.num_classes):
            index = real.train.of_class(c)
            x = real.train.inputs(index).flatten(1) if net is None else class_embeddings(net, real, c)
            rows = representatives(x.double(), ipc, self.restarts, ctx.seed_for("select", c))
            chosen.append(index[rows])
        return build_coreset(real, torch.cat(chosen))
