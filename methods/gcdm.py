"""GCDM: match the mean embeddings of the classes of a real and a synthetic graph (Liu et al., 2022)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import (
    Adjacency,
    Architecture,
    DistillContext,
    Method,
    Network,
    NodeGraph,
    NodeSet,
    RealSet,
    State,
    training_nodes,
)

from ._nodes.quota import check_quota, initial_nodes, quota, quota_labels


class GCDM(Method):
    """Learn features X' of nodes without edges, such that random networks embed the classes at the same means.

    An iteration draws a network of the run's architecture, and takes `outer` Adam steps on the squared L2 distance of
    the class means of the embeddings, weighted by n'_c / n'. Embeddings of real nodes are computed on the real graph.
    X' starts at the features of random training nodes. The network is in eval mode, so that there is no dropout.

    Deviations from the paper, whose code was not available:

    - The networks are not trained on the synthetic nodes between the updates.
    - There are no learned edges.
    - Only the input of the last layer is matched. For two layers, it is the only hidden layer.
    """

    modalities = ("node",)
    citation = (
        "Liu et al., Graph Condensation via Receptive Field Distribution Matching, arXiv:2206.13697, 2022"
    )
    smoke: ClassVar[dict[str, Any]] = {"iterations": 3}

    def __init__(self, *, iterations: int, outer: int, lr_features: float, nodes: int | None):
        """See `conf/method/gcdm.yaml` for the arguments.

        Raises:
            ValueError: `outer` is less than 1.
        """
        if outer < 1:
            raise ValueError(f"method.outer must be >= 1, got {outer}. Example: method.outer=5")
        self.iterations, self.outer, self.lr_features, self.nodes = iterations, outer, lr_features, nodes

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        return super().check_dataset(real, ipc, architecture) or check_quota(real, ipc, self.nodes)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> NodeSet:
        """See `Method`."""
        train, sizes = training_nodes(real), quota(real.train.counts, ipc, self.nodes)
        labels, k = quota_labels(sizes, ctx.device), real.num_classes
        x = train.features()[initial_nodes(real, sizes, ctx)].clone().requires_grad_()
        no_edges = Adjacency.empty(len(x), ctx.device)
        weights = torch.tensor(sizes, device=ctx.device) / sum(sizes)
        optimizer = torch.optim.Adam([x], lr=self.lr_features)
        state: State = {"features": x, "optimizer": optimizer}
        for step in ctx.steps(self.iterations, state, preview=lambda: NodeSet.of(real, x, labels)):
            net = ctx.network(ctx.architecture, step).eval()
            with torch.no_grad():
                target = class_means(net, train.graph.at(train.index), train.labels, k)
            total = torch.zeros((), device=ctx.device)
            for _ in range(self.outer):
                means = class_means(net, NodeGraph(x, no_edges), labels, k)
                loss = (weights * (means - target).square().sum(1)).sum()
                (x.grad,) = torch.autograd.grad(loss, [x])
                optimizer.step()
                total += loss.detach()
            ctx.log(loss=total / self.outer)
        return NodeSet.of(real, x, labels)


def class_means(net: Network, graph: NodeGraph, labels: Tensor, k: int) -> Tensor:
    """Return the mean embedding of each class, `(k, hidden)`."""
    h = net.embed(graph)  # type: ignore[arg-type]  # a graph instead of a tensor
    sums = h.new_zeros(k, h.shape[1]).index_add(0, labels, h)
    counts = torch.zeros(k, device=h.device).index_add_(0, labels, torch.ones_like(labels, dtype=h.dtype))
    return sums / counts[:, None]
