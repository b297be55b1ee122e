"""The edge generator of GCond: an adjacency matrix of the synthetic nodes as a function of their features.

Also when it is updated, and the graphs and sets that have its edges.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dd_bench.api import Adjacency, NodeGraph, NodeSet, RealSet, undirected

CYCLE, EDGE_STEPS = 50, 10  # of 50 iterations, the first 10 update the edges and the others the features


def check_threshold(threshold: float) -> None:
    """Raise ValueError unless the threshold of the edges that are stored is in [0, 1)."""
    if not 0 <= threshold < 1:
        raise ValueError(
            f"method.threshold must be in [0, 1), got {threshold}. Example: method.threshold=0.05"
        )


def updates_edges(step: int) -> bool:
    """Return whether an iteration updates the edge generator, and not the features."""
    return step % CYCLE < EDGE_STEPS


class EdgeGenerator(nn.Module):
    """A'_ij = sigmoid((m(x_i, x_j) + m(x_j, x_i)) / 2) with an MLP m, and 0 on the diagonal.

    m has three layers with BatchNorm and ReLU. BatchNorm uses the statistics of all pairs, also after the distillation,
    as in the released code. The first layer of a pair is the sum of a term of each node, so it costs n products, not
    n^2. The matrix is dense; n is the number of synthetic nodes.
    """

    def __init__(self, features: int, hidden: int):
        """Create the MLP for pairs of nodes with `features` features each."""
        super().__init__()
        self.sender = nn.Linear(features, hidden)
        self.receiver = nn.Linear(features, hidden, bias=False)
        bound = (2 * features) ** -0.5  # of nn.Linear for the concatenated features of a pair
        for parameter in (self.sender.weight, self.sender.bias, self.receiver.weight):
            nn.init.uniform_(parameter, -bound, bound)
        self.norms = nn.ModuleList([nn.BatchNorm1d(hidden, track_running_stats=False) for _ in range(2)])
        self.middle, self.out = nn.Linear(hidden, hidden), nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return A' `(n, n)` of the features `x (n, d)`."""
        n = len(x)
        h = (self.sender(x)[:, None] + self.receiver(x)[None]).flatten(0, 1)
        h = self.middle(torch.relu(self.norms[0](h)))
        m = self.out(torch.relu(self.norms[1](h))).view(n, n)
        a = torch.sigmoid((m + m.t()) / 2)
        return a * (1 - torch.eye(n, device=x.device))


def normalised(adjacency: Tensor) -> Tensor:
    """Return D^-1/2 (A' + I) D^-1/2 of a dense matrix A' `(n, n)`."""
    loops = adjacency + torch.eye(len(adjacency), device=adjacency.device)
    inv_sqrt = loops.sum(1).rsqrt()
    return inv_sqrt[:, None] * loops * inv_sqrt


def propagated(x: Tensor, adjacency: Tensor, hops: int) -> Tensor:
    """Return `x (n, d)` multiplied `hops` times by `normalised` of a dense matrix A' `(n, n)`."""
    matrix = normalised(adjacency)
    for _ in range(hops):
        x = matrix @ x
    return x


def learned_graph(x: Tensor, adjacency: Tensor) -> NodeGraph:
    """Return the nodes `x (n, d)` with all edges of a dense matrix A' `(n, n)`, whose gradients their weights keep."""
    sender, receiver = (1 - torch.eye(len(x), device=x.device)).nonzero().t()
    return NodeGraph(x, Adjacency(len(x), torch.stack([sender, receiver]), adjacency[receiver, sender]))


def learned_set(real: RealSet, x: Tensor, labels: Tensor, adjacency: Tensor, threshold: float) -> NodeSet:
    """Return a set with the features `x (n, d)` and the edges of A' `(n, n)` whose weight is above `threshold`."""
    a = adjacency.cpu()
    pairs = torch.triu_indices(len(x), len(x), 1)
    weights = a[pairs[0], pairs[1]]
    present = weights > threshold
    return NodeSet.of(real, x, labels, *undirected(pairs[:, present], weights[present]))
