"""The tangent kernel of graph networks of infinite width (Du et al., NeurIPS 2019; Wang et al., WWW 2024).

The network has a linear layer, and then `blocks` times an aggregation, f <- M f, and `layers` times a ReLU and a linear
layer, f <- (2 / width)^1/2 W relu(f). All weights are from N(0, 1). Its covariance S and its tangent kernel T start as
the products of the features and change by

    S <- M S M'^T,  T <- M T M'^T                                             for an aggregation
    T <- T k0(S / d d'^T) + d d'^T k1(S / d d'^T),  S <- d d'^T k1(S / d d'^T)   for a ReLU and a linear layer

with d the roots of the diagonal of S, k0(r) = (pi - arccos r) / pi and k1(r) = r k0(r) + (1 - r^2)^1/2 / pi. As
k1(1) = 1, d only changes in aggregations.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dd_bench.api import Adjacency

CLIP = 1 - 1e-9
"""Largest correlation. The derivative of arccos at 1 is infinite."""


class KernelNodes(NamedTuple):
    """The nodes of one side of a kernel.

    Attributes:
        features: float64 `(n, d)`.
        aggregation: M, sparse CSR, float64 `(n, n)`; None: the identity, for nodes without edges.
        norms: d after each aggregation, `(n,)` each.
    """

    features: Tensor
    aggregation: Tensor | None
    norms: list[Tensor]

    @classmethod
    def without_edges(cls, features: Tensor, blocks: int) -> KernelNodes:
        """Return nodes without edges. It is differentiable with respect to the features."""
        return cls(features, None, [features.square().sum(1).clamp_min(1e-24).sqrt()] * blocks)

    @classmethod
    def of_graph(cls, features: Tensor, aggregation: Tensor, blocks: int, layers: int) -> KernelNodes:
        """Return the nodes of a graph. It computes S of all pairs of these nodes, so they must be few."""
        s, norms = features @ features.t(), []
        for _ in range(blocks):
            s = aggregated(s, aggregation, aggregation)
            d = s.diagonal().clamp_min(1e-24).sqrt()
            norms.append(d)
            for _ in range(layers):
                s = relu_covariance(s, d, d)[0]
        return cls(features, aggregation, norms)


def structure_ntk(a: KernelNodes, b: KernelNodes, layers: int) -> Tensor:
    """Return the tangent kernel of each pair of nodes, float64 `(n, m)`."""
    s = t = a.features @ b.features.t()
    for d, e in zip(a.norms, b.norms, strict=True):
        s, t = (aggregated(k, a.aggregation, b.aggregation) for k in (s, t))
        for _ in range(layers):
            s, derivative = relu_covariance(s, d, e)
            t = t * derivative + s
    return t


def relu_covariance(s: Tensor, d: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """Return the covariances after a ReLU and a linear layer, and those of the derivatives of the ReLU.

    Args:
        s: covariances before it, `(n, m)`.
        d: standard deviations of the rows, `(n,)`.
        e: standard deviations of the columns, `(m,)`.
    """
    scale = d[:, None] * e
    r = (s / scale).clamp(-CLIP, CLIP)
    derivative = (math.pi - r.arccos()) / math.pi
    return scale * (r * derivative + (1 - r.square()).sqrt() / math.pi), derivative


def aggregated(k: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """Return `left k right^T` of a dense `k (n, m)` and sparse matrices; None: the identity."""
    if left is not None:
        k = left @ k
    return k if right is None else (right @ k.t()).t()


def aggregation(adjacency: Adjacency, kind: str) -> Tensor:
    """Return A + I (`sum`), or D^-1 (A + I) with its row sums D (`mean`), sparse CSR, float64 `(v, v)`.

    Weights of edges are not used.
    """
    edges = adjacency.edges_with_loops
    receiver = edges[1]
    ones = torch.ones(len(receiver), dtype=torch.float64, device=adjacency.device)
    if kind == "sum":
        return adjacency.csr(edges, ones)
    sums = ones.new_zeros(adjacency.v).index_add_(0, receiver, ones)
    return adjacency.csr(edges, 1 / sums[receiver])
