"""GCDM: match the mean embeddings of the classes of a real and a synthetic graph (Liu et al., 2022)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from dd_bench.api import (
    Adjacency,
    Architecture,
    DistillContext,
    Method,
    Network,
    NodeGraph,
    NodeSet,
    NodeSplit,
    RealSet,
    State,
    training_nodes,
)

from ._arguments import check_at_least
from ._nodes.quota import check_quota, initial_nodes, quota, quota_labels


class GCDM(Method):
    """Learn features X' of nodes without edges, such that random networks embed the classes at the same means.

    An iteration draws a network of the run's architecture, and takes `outer` Adam steps on the squared L2 distance of
    the class means of the embeddings, weighted by n'_c / n'. Between two of them, the network is trained for `inner`
    steps on the synthetic nodes. Embeddings of real nodes are computed on the real graph. X' starts at the features of
    random training nodes. The network is in eval mode, so that there is no dropout.

    With `inner=0`, the default, the method is DM of GCondenser: no training and no edges.

    Deviations from the paper, whose code was not available:

    - There are no learned edges.
    - Only the input of the last layer is matched. For two layers, it is the only hidden layer.

    Deviation from GraphSlim's code, whose values are in the configuration: class means are matched. The code takes the
    distances of random pairs of a real and a synthetic node of a class.
    """

    modalities = ("node",)
    citation = (
        "Liu et al., Graph Condensation via Receptive Field Distribution Matching, arXiv:2206.13697, 2022"
    )
    smoke: ClassVar[dict[str, Any]] = {"iterations": 3}

    def __init__(
        self,
        *,
        iterations: int,
        outer: int,
        inner: int,
        lr_features: float,
        lr_net: float,
        nodes: int | None,
    ):
        """See `conf/method/gcdm.yaml` for the arguments.

        Raises:
            ValueError: `outer` is less than 1, or `inner` less than 0.
        """
        check_at_least(1, outer=outer)
        check_at_least(0, inner=inner)
        self.iterations, self.outer, self.inner, self.nodes = iterations, outer, inner, nodes
        self.lr_features, self.lr_net = lr_features, lr_net

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
            trainer = torch.optim.Adam(net.parameters(), lr=self.lr_net) if self.inner else None
            target, total = real_means(net, train), torch.zeros((), device=ctx.device)
            for update in range(self.outer):
                means = class_means(net, NodeGraph(x, no_edges), labels, k)
                loss = (weights * (means - target).square().sum(1)).sum()
                (x.grad,) = torch.autograd.grad(loss, [x])
                optimizer.step()
                total += loss.detach()
                if trainer is not None and update + 1 < self.outer:
                    train_network(net, NodeGraph(x.detach(), no_edges), labels, self.inner, trainer)
                    target = real_means(net, train)
            ctx.log(loss=total / self.outer)
        return NodeSet.of(real, x, labels)


@torch.no_grad()
def real_means(net: Network, train: NodeSplit) -> Tensor:
    """Return the mean embedding of the training nodes of each class, `(k, hidden)`, without gradients."""
    return class_means(net, train.graph.at(train.index), train.labels, train.num_classes)


def train_network(
    net: Network, graph: NodeGraph, labels: Tensor, steps: int, optimizer: torch.optim.Optimizer
) -> None:
    """Train a network for `steps` steps on the cross-entropy of all nodes, in place."""
    parameters = list(net.parameters())
    for _ in range(steps):
        logits = net(graph)  # a graph instead of a tensor
        gradients = torch.autograd.grad(cross_entropy(logits, labels), parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()


def class_means(net: Network, graph: NodeGraph, labels: Tensor, k: int) -> Tensor:
    """Return the mean embedding of each class, `(k, hidden)`."""
    h = net.embed(graph)  # type: ignore[arg-type]  # a graph instead of a tensor
    sums = h.new_zeros(k, h.shape[1]).index_add(0, labels, h)
    counts = torch.zeros(k, device=h.device).index_add_(0, labels, torch.ones_like(labels, dtype=h.dtype))
    return sums / counts[:, None]
