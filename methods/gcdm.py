"""GCDM: match the mean embeddings of the classes of a real and a synthetic graph (Liu et al., 2022)."""

from __future__ import annotations

from collections.abc import Sequence
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
    seeded,
    training_nodes,
)

from ._arguments import check_at_least, check_choice
from ._nodes.pge import EdgeGenerator, check_threshold, learned_graph, learned_set, updates_edges
from ._nodes.quota import check_quota, initial_nodes, quota, quota_labels


class GCDM(Method):
    """Learn features X', and optionally edges A', such that random networks embed the classes at the same means.

    An iteration draws a network of the run's architecture, and takes `outer` Adam steps on the squared L2 distance of
    the class means of the embeddings, weighted by n'_c / n'. Between two of them, the network is trained for `inner`
    steps on the synthetic nodes. Embeddings of real nodes are computed on the real graph. X' starts at the features of
    random training nodes. The network is in eval mode, so that there is no dropout.

    - `structure=none`: A' = I, as in GraphSlim's code. With `inner=0` as well, it is the method DM of GCondenser.
    - `structure=pge`: A' is a function of X', see `EdgeGenerator`, and takes turns with X' as in GCond. Entries of at
      most `threshold` are not stored. Each update waits for the device, because the edges are checked.

    Deviations from the paper, whose code was not available:

    - The edge generator and the order of its updates are those of GCond.
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
        structure: str,
        lr_edges: float,
        edge_hidden: int,
        threshold: float,
        nodes: int | None,
    ):
        """See `conf/method/gcdm.yaml` for the arguments.

        Raises:
            ValueError: a value is unknown or out of range.
        """
        check_choice("structure", structure, ("none", "pge"))
        check_at_least(1, outer=outer, edge_hidden=edge_hidden)
        check_at_least(0, inner=inner)
        check_threshold(threshold)
        self.iterations, self.outer, self.inner, self.nodes = iterations, outer, inner, nodes
        self.lr_features, self.lr_net, self.lr_edges = lr_features, lr_net, lr_edges
        self.structure, self.edge_hidden, self.threshold = structure, edge_hidden, threshold

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        reason = super().check_dataset(real, ipc, architecture) or check_quota(real, ipc, self.nodes)
        if reason or self.structure == "none" or getattr(architecture.make, "uses_edge_weights", False):
            return reason
        return (
            f"method.structure=pge requires a network that uses the weights of edges, got {architecture.title}. "
            "Use method.structure=none, or model=node_gcn"
        )

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> NodeSet:
        """See `Method`."""
        train, sizes = training_nodes(real), quota(real.train.counts, ipc, self.nodes)
        labels, k = quota_labels(sizes, ctx.device), real.num_classes
        x = train.features()[initial_nodes(real, sizes, ctx)].clone().requires_grad_()
        weights = torch.tensor(sizes, device=ctx.device) / sum(sizes)
        optimizer = torch.optim.Adam([x], lr=self.lr_features)
        state: State = {"features": x, "optimizer": optimizer}
        no_edges, edges, of_edges = Adjacency.empty(len(x), ctx.device), None, None
        if self.structure == "pge":
            with seeded(ctx.device, ctx.seed_for("edges")):
                edges = EdgeGenerator(x.shape[1], self.edge_hidden).to(ctx.device)
            of_edges = torch.optim.Adam(edges.parameters(), lr=self.lr_edges)
            state = {**state, "edge generator": edges, "optimizer of edges": of_edges}

        def graph(x: Tensor) -> NodeGraph:
            return NodeGraph(x, no_edges) if edges is None else learned_graph(x, edges(x))

        @torch.no_grad()
        def distilled() -> NodeSet:
            if edges is None:
                return NodeSet.of(real, x, labels)
            return learned_set(real, x, labels, edges(x), self.threshold)

        for step in ctx.steps(self.iterations, state, preview=distilled):
            net = ctx.network(ctx.architecture, step).eval()
            trainer = torch.optim.Adam(net.parameters(), lr=self.lr_net) if self.inner else None
            changed, updater = [x], optimizer
            if edges is not None and of_edges is not None and updates_edges(step):
                changed, updater = list(edges.parameters()), of_edges
            target, total = real_means(net, train), torch.zeros((), device=ctx.device)
            for update in range(self.outer):
                means = class_means(net, graph(x), labels, k)
                loss = (weights * (means - target).square().sum(1)).sum()
                descend(loss, changed, updater)
                total += loss.detach()
                if trainer is not None and update + 1 < self.outer:
                    with torch.no_grad():
                        syn = graph(x.detach())
                    for _ in range(self.inner):
                        descend(cross_entropy(net(syn), labels), list(net.parameters()), trainer)
                    target = real_means(net, train)
            ctx.log(loss=total / self.outer)
        return distilled()


def descend(loss: Tensor, parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Take a step of the optimizer of `parameters` along the gradient of the loss."""
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()


@torch.no_grad()
def real_means(net: Network, train: NodeSplit) -> Tensor:
    """Return the mean embedding of the training nodes of each class, `(k, hidden)`, without gradients."""
    return class_means(net, train.graph.at(train.index), train.labels, train.num_classes)


def class_means(net: Network, graph: NodeGraph, labels: Tensor, k: int) -> Tensor:
    """Return the mean embedding of each class, `(k, hidden)`."""
    h = net.embed(graph)  # type: ignore[arg-type]  # a graph instead of a tensor
    sums = h.new_zeros(k, h.shape[1]).index_add(0, labels, h)
    counts = torch.zeros(k, device=h.device).index_add_(0, labels, torch.ones_like(labels, dtype=h.dtype))
    return sums / counts[:, None]
