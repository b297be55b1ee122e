"""Centroids of propagated features: k-means of each class, a set of nodes without training and without edges."""

from __future__ import annotations

import torch

from dd_bench.api import Architecture, DistillContext, Method, NodeSet, RealSet, centroids, training_nodes

from ._arguments import check_at_least
from ._nodes.quota import check_quota, quota, quota_labels


class PropagatedKMeans(Method):
    """Cluster the features of the training nodes of each class after `hops` steps of propagation.

    The synthetic nodes are the centroids, without edges. scikit-learn computes them (k-means++, best of `restarts`).
    With one node per class, they are the class means. No network is trained.
    """

    modalities = ("node",)
    citation = (
        "centroids of propagated features; Wu et al., Simplifying Graph Convolutional Networks, ICML 2019"
    )

    def __init__(self, *, nodes: int | None, hops: int, restarts: int):
        """See `conf/method/kmeans_nodes.yaml` for the arguments.

        Raises:
            ValueError: a value is out of range.
        """
        check_at_least(0, hops=hops)
        check_at_least(1, restarts=restarts)
        self.nodes, self.hops, self.restarts = nodes, hops, restarts

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        return super().check_dataset(real, ipc, architecture) or check_quota(real, ipc, self.nodes)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> NodeSet:
        """See `Method`."""
        features = training_nodes(real).features(self.hops).cpu()
        sizes, centres = quota(real.train.counts, ipc, self.nodes), []
        for c, size in enumerate(sizes):
            members = features[real.train.of_class(c).cpu()]
            centres.append(centroids(members, size, self.restarts, ctx.seed_for("kmeans", c)).float())
        return NodeSet.of(real, torch.cat(centres), quota_labels(sizes, torch.device("cpu")))
