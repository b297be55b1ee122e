"""One graph with features on its nodes: the inputs of node classification, real or synthetic.

All operations take memory and time linear in the numbers of nodes and edges. No dense `(v, v)` matrix is built.

Shape letters: `v` nodes, `e` directed edges, `d` features.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

SPARSE_BELOW = 0.1
"""Features with a smaller share of non-zero values are also stored as a sparse matrix, for products with weights."""


class NodeShape(NamedTuple):
    """Number of features of a node. A network is built from this number."""

    features: int


class Adjacency:
    """The edges of a graph, and its sparse matrices, which are computed once for all views of the graph.

    Attributes:
        v: number of nodes.
        edges: sender and receiver of each edge, int64 `(2, e)`, without self-loops and duplicates. An undirected edge
            is stored in both directions.
        weights: weight of each edge, float32 `(e,)`; None: ones.
    """

    def __init__(self, v: int, edges: Tensor, weights: Tensor | None = None):
        """Create the adjacency of `v` nodes.

        Raises:
            ValueError: wrong shapes or dtypes, an end outside of 0..v-1, or a self-loop.
        """
        if edges.ndim != 2 or len(edges) != 2 or edges.dtype != torch.int64:
            raise ValueError(f"edges must be int64 (2, e), got {edges.dtype} {tuple(edges.shape)}")
        if weights is not None and weights.shape != edges.shape[1:]:
            raise ValueError(f"weights must have shape ({edges.shape[1]},), got {tuple(weights.shape)}")
        if edges.numel():
            low, high = (int(end) for end in edges.aminmax())
            if low < 0 or high >= v:
                raise ValueError(f"edges must connect nodes in 0..{v - 1}, got {low}..{high}")
            if bool((edges[0] == edges[1]).any()):
                raise ValueError("edges must not contain self-loops")
        self.v, self.edges, self.weights = v, edges, weights

    @classmethod
    def empty(cls, v: int, device: torch.device) -> Adjacency:
        """Return the adjacency of `v` nodes without any edge."""
        return cls(v, torch.zeros(2, 0, dtype=torch.int64, device=device))

    @property
    def device(self) -> torch.device:
        """The device of all tensors."""
        return self.edges.device

    @cached_property
    def sums(self) -> Tensor:
        """Sum of the weights of the incoming edges of each node, float32 `(v,)`."""
        return torch.zeros(self.v, device=self.device).index_add(0, self.edges[1], self._values)

    @cached_property
    def normalised(self) -> Tensor:
        """D^-1/2 (A + I) D^-1/2 (Kipf and Welling) as a sparse CSR matrix `(v, v)`; D includes the self-loops."""
        return self.csr(*self.normalised_edges())

    def normalised_edges(self) -> tuple[Tensor, Tensor]:
        """Return the edges with self-loops, `(2, e + v)`, and their entries in `normalised`.

        The entries are differentiable with respect to `weights`.
        """
        inv_sqrt = (self.sums + 1).rsqrt()
        sender, receiver = self.edges
        entries = torch.cat([inv_sqrt[sender] * self._values * inv_sqrt[receiver], inv_sqrt.square()])
        return self.edges_with_loops, entries

    @cached_property
    def edges_with_loops(self) -> Tensor:
        """The edges, and then a self-loop of each node, int64 `(2, e + v)`."""
        loops = torch.arange(self.v, device=self.device).expand(2, -1)
        return torch.cat([self.edges, loops], 1)

    @cached_property
    def summed(self) -> Tensor:
        """The weights as a sparse CSR matrix `(v, v)`, whose row i has the incoming edges of node i."""
        return self.csr(self.edges, self._values)

    @cached_property
    def averaged(self) -> Tensor:
        """Like `summed`, with rows that sum to one. The row of a node without edges is zero."""
        return self.csr(self.edges, self._values / self.sums.clamp_min(1e-12)[self.edges[1]])

    def csr(self, edges: Tensor, values: Tensor) -> Tensor:
        """Return a sparse CSR matrix `(v, v)` with a value for each pair `(2, m)` of column and row."""
        column, row = edges
        order = (row * self.v + column).argsort()
        counts = torch.zeros(self.v, dtype=torch.int64, device=self.device).index_add_(
            0, row, torch.ones_like(row)
        )
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        with _without_beta_warnings():
            return torch.sparse_csr_tensor(
                starts, column[order], values[order], (self.v, self.v), check_invariants=False
            )

    def subgraph(self, index: Tensor) -> Adjacency:
        """Return the edges among the nodes `index (n,)`, which get the numbers 0..n-1 in this order.

        Edges are sorted by sender and receiver.
        """
        number = torch.full((self.v,), -1, dtype=torch.int64, device=self.device)
        number[index] = torch.arange(len(index), device=self.device)
        ends = number[self.edges]
        inside = (ends >= 0).all(0).nonzero().flatten()
        inside = inside[(ends[0, inside] * len(index) + ends[1, inside]).argsort()]
        weights = None if self.weights is None else self.weights[inside]
        return Adjacency(len(index), ends[:, inside], weights)

    def to(self, device: torch.device) -> Adjacency:
        """Return the adjacency on `device`; `self` if it is there already."""
        if self.device == device:
            return self
        weights = None if self.weights is None else self.weights.to(device)
        return Adjacency(self.v, self.edges.to(device), weights)

    @property
    def _values(self) -> Tensor:
        if self.weights is not None:
            return self.weights
        return torch.ones(self.edges.shape[1], device=self.device)


@dataclass(frozen=True, eq=False)
class NodeGraph:
    """A graph with features on its nodes, and the nodes whose classes are predicted.

    Views of one graph (see `at`) share its tensors and its sparse matrices.

    Attributes:
        features: float32 `(v, d)`.
        adjacency: the edges.
        nodes: the nodes that networks return logits for, int64 `(n,)`; None: all nodes.
        sparse_features: `features` as a sparse CSR matrix, if few values are non-zero; else None.
    """

    features: Tensor
    adjacency: Adjacency
    nodes: Tensor | None = None
    sparse_features: Tensor | None = None

    @classmethod
    def of(cls, features: Tensor, edges: Tensor, weights: Tensor | None = None) -> NodeGraph:
        """Build a graph from features `(v, d)` and edges in both directions, int64 `(2, e)`.

        Raises:
            ValueError: a shape or dtype is wrong, or a feature is not finite.
        """
        if features.ndim != 2 or features.dtype != torch.float32 or not len(features):
            raise ValueError(
                f"features must be float32 (v, d) with v >= 1, got {features.dtype} {tuple(features.shape)}"
            )
        if not bool(torch.isfinite(features.detach().aminmax().min + features.detach().aminmax().max)):
            raise ValueError("all features must be finite")
        return cls(features, Adjacency(len(features), edges, weights), None, _sparse(features))

    def __len__(self) -> int:
        """Return the number of nodes that networks return logits for."""
        return self.adjacency.v if self.nodes is None else len(self.nodes)

    @property
    def device(self) -> torch.device:
        """The device of all tensors."""
        return self.features.device

    @property
    def inputs(self) -> Tensor:
        """The features as networks multiply them with weights: sparse, if few values are non-zero."""
        return self.features if self.sparse_features is None else self.sparse_features

    def dense(self) -> NodeGraph:
        """Return the graph without `sparse_features`, so that `inputs` are dense."""
        return replace(self, sparse_features=None)

    def at(self, nodes: Tensor | None) -> NodeGraph:
        """Return a view of the same graph, for which networks return the logits of `nodes (n,)`."""
        return replace(self, nodes=nodes)

    def subgraph(self, index: Tensor) -> NodeGraph:
        """Return the graph induced by the nodes `index (n,)`, which get the numbers 0..n-1 in this order."""
        features = self.features[index]
        return NodeGraph(features, self.adjacency.subgraph(index), None, _sparse(features))

    def with_columns(self, columns: Tensor) -> NodeGraph:
        """Return the graph with the features `columns` only."""
        features = self.features[:, columns]
        return replace(self, features=features, sparse_features=_sparse(features))

    def without_edges(self) -> NodeGraph:
        """Return the nodes without any edge. On such a graph, every network is an MLP."""
        return replace(self, adjacency=Adjacency.empty(self.adjacency.v, self.adjacency.device))

    def propagated(self, hops: int) -> Tensor:
        """Return `features` multiplied `hops` times by the normalised adjacency, float32 `(v, d)`."""
        x = self.features
        for _ in range(hops):
            x = self.adjacency.normalised @ x
        return x

    def to(self, device: torch.device) -> NodeGraph:
        """Return the graph on `device`; `self` if it is there already."""
        if self.device == device:
            return self
        moved = (None if t is None else t.to(device) for t in (self.nodes, self.sparse_features))
        return NodeGraph(self.features.to(device), self.adjacency.to(device), *moved)

    def clone(self) -> NodeGraph:
        """Return `self`, because no tensor is a view of a larger one (see `Inputs.clone`)."""
        return self


def undirected(edges: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Return edges `(2, m)` in both directions, without self-loops and duplicates, sorted by sender and receiver.

    A pair of nodes gets the weight of its first occurrence, in whichever direction.
    """
    ends = edges.sort(0).values
    keep = ends[0] != ends[1]
    ends = ends[:, keep]
    if not ends.numel():
        return ends, None if weights is None else weights[:0]
    base = int(ends.max()) + 1
    keys, inverse = (ends[0] * base + ends[1]).unique(return_inverse=True)
    once = torch.stack([keys // base, keys % base])
    both = torch.cat([once, once.flip(0)], 1)
    order = (both[0] * base + both[1]).argsort()
    if weights is None:
        return both[:, order], None
    first = torch.full((len(keys),), len(inverse), dtype=torch.int64, device=ends.device)
    first.scatter_reduce_(0, inverse, torch.arange(len(inverse), device=ends.device), "amin")
    return both[:, order], weights[keep][first].repeat(2)[order]


def _sparse(features: Tensor) -> Tensor | None:
    """Return features as a sparse CSR matrix; None if they are dense, small, or require a gradient."""
    if features.requires_grad or features.numel() < 1 << 16:
        return None
    if int(torch.count_nonzero(features)) >= SPARSE_BELOW * features.numel():
        return None
    with _without_beta_warnings():
        return features.to_sparse_csr()


@contextmanager
def _without_beta_warnings() -> Iterator[None]:
    """Suppress the warnings that torch gives for the first CSR tensor of a process: beta feature, no checks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse (CSR|invariant)", UserWarning)
        yield
