"""Herding and k-center of nodes, in the embedding of a network or of propagated features.

Papers select nodes by the outputs of a network that is trained on the whole training graph. Such a coreset costs a full
training, as its record notes. Without a network, `embedding=propagated` uses the features of SGC.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import (
    Architecture,
    DistillContext,
    NodeSet,
    RealSet,
    training_nodes,
)

from ._arguments import check_at_least, check_choice
from ._coreset import FeatureCoreset
from ._nodes.quota import check_quota, quota
from .herding import Herding
from .kcenter import KCenter

HOPS = 2


class NodeCoreset(FeatureCoreset):
    """Select training nodes class by class; the set has their features and the edges among them."""

    modalities = ("node",)
    smoke: ClassVar[dict[str, Any]] = {"teacher.steps": 10}

    def __init__(
        self, *, teacher: dict[str, Any], feature_network: str, embedding: str, nodes: int | None, hops: int
    ):
        """See `conf/method/herding_nodes.yaml` for the arguments.

        Raises:
            ValueError: `embedding` is unknown, or `hops` is negative.
        """
        super().__init__(teacher=teacher, feature_network=feature_network)
        check_choice("embedding", embedding, ("network", "propagated", "features"))
        check_at_least(0, hops=hops)
        self.embedding, self.nodes, self.hops = embedding, nodes, hops

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if real.modality != "node":
            return super().check_dataset(real, ipc, architecture)
        return check_quota(real, ipc, self.nodes)

    def prepare(self, real: RealSet, ctx: DistillContext) -> None:
        """Train the network, if the embedding uses one."""
        if self.embedding == "network":
            super().prepare(real, ctx)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> NodeSet:
        """See `Method`."""
        features, chosen = self._embeddings(real, ctx).double(), []
        for c, size in enumerate(quota(real.train.counts, ipc, self.nodes)):
            members = real.train.of_class(c)
            chosen.append(members[self.select(features[members], size, ctx.seed_for("select", c))])
        return NodeSet.coreset(real, torch.cat(chosen), hops=self.hops)

    def _embeddings(self, real: RealSet, ctx: DistillContext) -> Tensor:
        """Return the embedding of each training node, `(n, d)`."""
        train = training_nodes(real)
        if self.embedding != "network":
            return train.features(HOPS if self.embedding == "propagated" else 0)
        net = self.network(real, ctx)
        ctx.note("selects by the outputs of a network that is trained on the whole training graph")
        with torch.no_grad():
            logits: Tensor = net(train.graph.at(train.index))
        return logits.log_softmax(1)


class NodeHerding(NodeCoreset, Herding):
    """Herding (Welling, ICML 2009) of nodes.

    Deviation from GCond's code: the network is that after its last step, not the best one on the validation nodes.
    """

    citation = Herding.citation


class NodeKCenter(NodeCoreset, KCenter):
    """K-Center (Sener and Savarese, ICLR 2018) of nodes.

    Deviation from GCond's code: the network is that after its last step, not the best one on the validation nodes.
    """

    citation = KCenter.citation
