"""The edge generator of GCond: an adjacency matrix of the synthetic nodes as a function of their features."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
