"""Graphs laid end to end in a few tensors: real ones, synthetic ones, and a batch of either.

Letters: `n` graphs, `v` nodes, `e` edges, `f` and `g` columns of node and edge labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor


class GraphShape(NamedTuple):
    """What a network has to know of the graphs it takes.

    Attributes:
        nodes: number of values of each column of node labels, `f` of them.
        edges: number of values of each column of edge labels; empty for edges without labels.
    """

    nodes: tuple[int, ...]
    edges: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Graphs:
    """Graphs, one after the other; edges point from the sender of a message to its receiver.

    Attributes:
        nodes: labels of the nodes, int64 `(v, f)`; or float32 `(v, sum of the values of all columns)`, a weight for
            each value, of which a label is the special case of a one.
        edges: int64 `(2, e)`: from and to, numbered over all graphs; an undirected edge is there both ways.
        edge_labels: int64 `(e, g)`.
        ptr: where each graph's nodes begin, and where the last one's end, int64 `(n + 1,)`.
        roots: bool `(v,)`: the nodes whose embeddings are read out; None: all.
        degrees: int64 `(v,)`: neighbours of a node in the graph that it was cut from; None: all are here.
        weights: float32 `(e,)` of the edges; None: all are one.
    """

    nodes: Tensor
    edges: Tensor
    edge_labels: Tensor
    ptr: Tensor
    roots: Tensor | None = None
    degrees: Tensor | None = None
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        """Raises ValueError unless shapes, dtypes and numbers fit each other."""
        v, e = len(self.nodes), self.edges.shape[-1]
        if self.nodes.ndim != 2 or self.nodes.dtype not in (torch.int64, torch.float32):
            raise ValueError(
                f"nodes are int64 (v, f) or float32 (v, values); got {self.nodes.dtype} {tuple(self.nodes.shape)}"
            )
        if self.edges.shape != (2, e) or self.edges.dtype != torch.int64:
            raise ValueError(f"edges are int64 (2, e); got {self.edges.dtype} {tuple(self.edges.shape)}")
        if self.edge_labels.ndim != 2 or len(self.edge_labels) != e or self.edge_labels.dtype != torch.int64:
            raise ValueError(
                f"{e} edges have labels {self.edge_labels.dtype} {tuple(self.edge_labels.shape)}"
            )
        if self.ptr.ndim != 1 or self.ptr.dtype != torch.int64 or len(self.ptr) < 2:
            raise ValueError(f"ptr is int64 (n + 1,); got {self.ptr.dtype} {tuple(self.ptr.shape)}")
        for name in ("roots", "degrees"):
            value = getattr(self, name)
            if value is not None and value.shape != (v,):
                raise ValueError(f"{name} are one a node, ({v},); got {tuple(value.shape)}")

    def check(self, shape: GraphShape) -> None:
        """Raises ValueError unless every number names something; for graphs that come from a file."""
        ptr = self.ptr
        if int(ptr[0]) != 0 or int(ptr[-1]) != len(self.nodes) or bool((ptr.diff() < 1).any()):
            raise ValueError(f"ptr has to rise from 0 to the {len(self.nodes)} nodes, a node or more a graph")
        if self.edges.numel() and not 0 <= int(self.edges.min()) <= int(self.edges.max()) < len(self.nodes):
            raise ValueError(f"an edge names a node outside 0..{len(self.nodes) - 1}")
        ends = self.graph_of[self.edges]
        if bool((ends[0] != ends[1]).any()):
            raise ValueError("an edge leads from one graph into another")
        if self.nodes.is_floating_point():
            if self.nodes.shape[1] != sum(shape.nodes) or not bool(torch.isfinite(self.nodes).all()):
                raise ValueError(f"float nodes are {sum(shape.nodes)} finite weights each")
        else:
            _check_labels("node", self.nodes, shape.nodes)
        _check_labels("edge", self.edge_labels, shape.edges)
        if self.degrees is not None and bool((self.degrees < 0).any()):
            raise ValueError(f"a node has {int(self.degrees.min())} neighbours")

    def __len__(self) -> int:
        return len(self.ptr) - 1

    @cached_property
    def num_nodes(self) -> Tensor:
        """Nodes of each graph, `(n,)`."""
        return self.ptr.diff()

    @cached_property
    def graph_of(self) -> Tensor:
        """The graph of each node, `(v,)`."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.ptr.device), self.num_nodes)

    @cached_property
    def _edges_by_graph(self) -> tuple[Tensor, Tensor]:
        """The edges in the order of their graphs, and where each graph's begin, `(n + 1,)`."""
        graph = self.graph_of[self.edges[1]]
        count = torch.bincount(graph, minlength=len(self))
        start = torch.cat([count.new_zeros(1), count.cumsum(0)])
        return graph.argsort(stable=True), start

    @cached_property
    def incoming(self) -> tuple[Tensor, Tensor]:
        """The edges in the order of their receivers, and where each node's begin, `(v + 1,)`."""
        count = torch.bincount(self.edges[1], minlength=len(self.nodes))
        start = torch.cat([count.new_zeros(1), count.cumsum(0)])
        return self.edges[1].argsort(stable=True), start

    @cached_property
    def normalised(self) -> tuple[Tensor, Tensor]:
        """The edges with a loop at each node, and D^-1/2 (A + I) D^-1/2 on them; of the stored degrees where they are.

        Kipf and Welling's, for all layers and steps that see these graphs. Weights that carry a gradient are taken
        once too: graphs of learned edges are made anew for every backward pass.
        """
        v, (sender, receiver) = len(self.nodes), self.edges
        weight = self.weights
        if weight is None:
            weight = torch.ones(len(sender), device=self.device, dtype=torch.float64)
        degree = self.degrees
        if degree is None:
            degree = weight.new_zeros(v).index_add(0, receiver, weight)
        root = (degree + 1).to(weight.dtype).rsqrt()  # of the degree with the loop
        edges = torch.cat([self.edges, torch.arange(v, device=self.device).expand(2, -1)], 1)
        return edges, torch.cat([root[sender] * weight * root[receiver], root.square()])

    def __getitem__(self, index: Tensor) -> Graphs:
        """Returns the graphs `index (b,)`, in that order."""
        nodes, ptr = segment_indices(self.ptr, index)
        by_graph, start = self._edges_by_graph
        at, edge_ptr = segment_indices(start, index)
        edges = by_graph[at]
        moved = torch.repeat_interleave(ptr[:-1] - self.ptr[index], edge_ptr.diff())
        return Graphs(
            self.nodes[nodes],
            self.edges[:, edges] + moved,
            self.edge_labels[edges],
            ptr,
            None if self.roots is None else self.roots[nodes],
            None if self.degrees is None else self.degrees[nodes],
            None if self.weights is None else self.weights[edges],
        )

    def to(self, device: torch.device) -> Graphs:
        """Returns them on `device`."""

        def moved(part: Tensor | None) -> Any:
            return None if part is None else part.to(device)

        return Graphs(*(moved(getattr(self, field.name)) for field in fields(self)))

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.ptr.device

    def clone(self) -> Graphs:
        """Returns themselves: every tensor is whole."""
        return self


def concatenate(parts: Sequence[Graphs]) -> Graphs:
    """Returns the graphs of all parts, one after the other; the parts have the same columns."""
    shift, ptr, edges = 0, [parts[0].ptr[:1]], []
    for part in parts:
        edges.append(part.edges + shift)
        ptr.append(part.ptr[1:] + shift)
        shift += len(part.nodes)

    def cat(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if any(v is None for v in values) else torch.cat(values)

    nodes, labels = torch.cat([p.nodes for p in parts]), torch.cat([p.edge_labels for p in parts])
    return Graphs(
        nodes, torch.cat(edges, 1), labels, torch.cat(ptr), cat("roots"), cat("degrees"), cat("weights")
    )


def coalesce(edges: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns directed edges `(2, e)` once each, without loops, and the labels `(e, g)` of their first mention."""
    keep = (edges[0] != edges[1]).nonzero().flatten()
    edges, labels = edges[:, keep], labels[keep]
    if not edges.numel():
        return edges, labels
    first = first_occurrence(edges).unique()
    order = (edges[0, first] * (int(edges.max()) + 1) + edges[1, first]).argsort()
    return edges[:, first[order]], labels[first[order]]


def first_occurrence(edges: Tensor) -> Tensor:
    """Returns for each of the edges `(2, e)` the number of the first that is equal to it, `(e,)`."""
    if not edges.numel():
        return edges.new_zeros(0)
    key = edges[0] * (int(edges.max()) + 1) + edges[1]
    _, back = key.unique(return_inverse=True)
    first = torch.full((int(back.max()) + 1,), len(key), dtype=torch.int64)
    return first.scatter_reduce_(0, back, torch.arange(len(key)), "amin")[back]


def segment_indices(ptr: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions of the segments `index`, which begin at `ptr`, and where each one begins in the result."""
    length = (ptr[1:] - ptr[:-1])[index]
    start = torch.cat([length.new_zeros(1), length.cumsum(0)])
    shift = torch.repeat_interleave(ptr[index] - start[:-1], length)
    return torch.arange(int(start[-1]), device=ptr.device) + shift, start


def _check_labels(what: str, labels: Tensor, values: tuple[int, ...]) -> None:
    if labels.shape[1] != len(values):
        raise ValueError(f"{what} labels have {labels.shape[1]} columns, wanted {len(values)}")
    if len(labels) and bool(((labels < 0) | (labels >= torch.tensor(values, device=labels.device))).any()):
        raise ValueError(f"a label of the {what}s is outside the {values} values of its columns")
