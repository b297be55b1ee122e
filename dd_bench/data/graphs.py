"""Graphs concatenated in a few tensors: real graphs, synthetic graphs, and batches of both.

Shape letters: `n` graphs, `v` nodes, `e` edges, `f` columns of node labels, `g` columns of edge labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor


class GraphShape(NamedTuple):
    """Number of values of each node label and each edge label. A network is built from these numbers.

    Attributes:
        nodes: number of values of each of the `f` columns of node labels.
        edges: number of values of each of the `g` columns of edge labels. Empty if edges have no labels.
    """

    nodes: tuple[int, ...]
    edges: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Graphs:
    """Concatenated graphs. Edges point from the sender of a message to its receiver.

    Attributes:
        nodes: node labels, int64 `(v, f)`; or float32 `(v, total number of values over all columns)` with one weight
            per value. A one-hot row is equivalent to a label.
        edges: int64 `(2, e)`, sender and receiver, numbered over all graphs. An undirected edge is stored in both
            directions.
        edge_labels: int64 `(e, g)`.
        ptr: int64 `(n + 1,)`. Graph i has the nodes `ptr[i]` to `ptr[i + 1] - 1`.
        roots: bool `(v,)`, the nodes whose embeddings are read out. None means all nodes.
        degrees: int64 `(v,)`, number of neighbours of each node in the original graph, if the stored graphs are
            parts of it. None means that all neighbours are present.
        weights: edge weights, float32 `(e,)`. None means ones.
    """

    nodes: Tensor
    edges: Tensor
    edge_labels: Tensor
    ptr: Tensor
    roots: Tensor | None = None
    degrees: Tensor | None = None
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless the shapes and dtypes are consistent."""
        v, e = len(self.nodes), self.edges.shape[-1]
        if self.nodes.ndim != 2 or self.nodes.dtype not in (torch.int64, torch.float32):
            raise ValueError(
                f"nodes must be int64 (v, f) or float32 (v, values), got {self.nodes.dtype} {tuple(self.nodes.shape)}"
            )
        if self.edges.shape != (2, e) or self.edges.dtype != torch.int64:
            raise ValueError(f"edges must be int64 (2, e), got {self.edges.dtype} {tuple(self.edges.shape)}")
        if self.edge_labels.ndim != 2 or len(self.edge_labels) != e or self.edge_labels.dtype != torch.int64:
            raise ValueError(
                f"edge_labels must be int64 ({e}, g), got {self.edge_labels.dtype} {tuple(self.edge_labels.shape)}"
            )
        if self.ptr.ndim != 1 or self.ptr.dtype != torch.int64 or len(self.ptr) < 2:
            raise ValueError(f"ptr must be int64 (n + 1,), got {self.ptr.dtype} {tuple(self.ptr.shape)}")
        for name in ("roots", "degrees"):
            value = getattr(self, name)
            if value is not None and value.shape != (v,):
                raise ValueError(
                    f"{name} must have one entry per node, i.e. shape ({v},), got {tuple(value.shape)}"
                )

    def check(self, shape: GraphShape) -> None:
        """Raise ValueError if an index or a label is out of range. Call this on graphs that were read from a file."""
        ptr = self.ptr
        if int(ptr[0]) != 0 or int(ptr[-1]) != len(self.nodes) or bool((ptr.diff() < 1).any()):
            raise ValueError(
                f"ptr must increase strictly from 0 to the number of nodes, {len(self.nodes)}, "
                f"got {int(ptr[0])} to {int(ptr[-1])} with a smallest increase of {int(ptr.diff().min())}"
            )
        if self.edges.numel() and not 0 <= int(self.edges.min()) <= int(self.edges.max()) < len(self.nodes):
            raise ValueError(
                f"edges must connect nodes in 0..{len(self.nodes) - 1}, "
                f"got {int(self.edges.min())}..{int(self.edges.max())}"
            )
        ends = self.graph_of[self.edges]
        if bool((ends[0] != ends[1]).any()):
            first = ends[:, ends[0] != ends[1]][:, 0].tolist()
            raise ValueError(
                f"both nodes of an edge must be in the same graph, got an edge between graphs {first}"
            )
        if self.nodes.is_floating_point():
            if self.nodes.shape[1] != sum(shape.nodes) or not bool(torch.isfinite(self.nodes).all()):
                raise ValueError(
                    f"nodes of dtype float32 must have {sum(shape.nodes)} finite weights per node, got "
                    f"{self.nodes.shape[1]} per node, "
                    f"and {int((~torch.isfinite(self.nodes)).sum())} non-finite weight(s)"
                )
        else:
            _check_labels("node", self.nodes, shape.nodes)
        _check_labels("edge", self.edge_labels, shape.edges)
        if self.degrees is not None and bool((self.degrees < 0).any()):
            raise ValueError(f"degrees must be >= 0, got {int(self.degrees.min())}")

    def __len__(self) -> int:
        return len(self.ptr) - 1

    @cached_property
    def num_nodes(self) -> Tensor:
        """Number of nodes of each graph, `(n,)`."""
        return self.ptr.diff()

    @cached_property
    def graph_of(self) -> Tensor:
        """Index of the graph of each node, `(v,)`."""
        graphs = torch.arange(len(self), device=self.ptr.device)
        return graphs.repeat_interleave(self.num_nodes, output_size=len(self.nodes))

    @cached_property
    def _edges_by_graph(self) -> tuple[Tensor, Tensor]:
        """Edge indices sorted by graph, `(e,)`, and offsets `(n + 1,)`.

        The edges of graph i are at the positions `offsets[i]` to `offsets[i + 1] - 1` of the edge indices.
        """
        return _sorted_by(self.graph_of[self.edges[1]], len(self))

    @cached_property
    def incoming(self) -> tuple[Tensor, Tensor]:
        """Edge indices sorted by receiver, `(e,)`, and offsets `(v + 1,)`.

        The incoming edges of node i are at the positions `offsets[i]` to `offsets[i + 1] - 1` of the edge indices.
        """
        return _sorted_by(self.edges[1], len(self.nodes))

    @cached_property
    def normalised(self) -> tuple[Tensor, Tensor]:
        """Edges with self-loops, `(2, e + v)`, and their entries in D^-1/2 (A + I) D^-1/2 (Kipf and Welling).

        D uses the stored `degrees` if there are any. The result is cached for all layers and steps that use these
        graphs. This is correct even if `weights` require a gradient, because graphs with learned edges are rebuilt for
        every backward pass.
        """
        v, (sender, receiver) = len(self.nodes), self.edges
        weight = self.weights
        if weight is None:
            weight = torch.ones(len(sender), device=self.device, dtype=torch.float64)
        degree = self.degrees
        if degree is None:
            degree = weight.new_zeros(v).index_add(0, receiver, weight)
        inv_sqrt = (degree + 1).to(weight.dtype).rsqrt()  # the self-loop adds 1
        edges = torch.cat([self.edges, torch.arange(v, device=self.device).expand(2, -1)], 1)
        return edges, torch.cat([inv_sqrt[sender] * weight * inv_sqrt[receiver], inv_sqrt.square()])

    def __getitem__(self, index: Tensor) -> Graphs:
        """Return the graphs at `index`, int64 `(b,)`, in that order.

        The call waits for the device once, because the shapes of the result depend on the drawn graphs. Use `sizes` and
        `take` to wait once for several batches.
        """
        return self.take(index, self.sizes([index])[0])

    def sizes(self, indices: Sequence[Tensor]) -> list[tuple[int, int]]:
        """Return the total numbers of nodes and of edges of the graphs at each of `indices`."""
        edges = self._edges_by_graph[1].diff()
        counts = [torch.stack([self.num_nodes[index].sum(), edges[index].sum()]) for index in indices]
        return [(v, e) for v, e in torch.stack(counts).tolist()]

    def take(self, index: Tensor, size: tuple[int, int]) -> Graphs:
        """Return the graphs at `index`, int64 `(b,)`, which have `size` nodes and edges in total."""
        nodes, ptr = segment_indices(self.ptr, index, size[0])
        by_graph, start = self._edges_by_graph
        positions, edge_ptr = segment_indices(start, index, size[1])
        edges = by_graph[positions]
        shift = (ptr[:-1] - self.ptr[index]).repeat_interleave(edge_ptr.diff(), output_size=size[1])
        return Graphs(
            self.nodes[nodes],
            self.edges[:, edges] + shift,
            self.edge_labels[edges],
            ptr,
            None if self.roots is None else self.roots[nodes],
            None if self.degrees is None else self.degrees[nodes],
            None if self.weights is None else self.weights[edges],
        )

    def to(self, device: torch.device) -> Graphs:
        """Return the graphs on `device`."""

        def move(tensor: Tensor | None) -> Any:
            return None if tensor is None else tensor.to(device)

        return Graphs(*(move(getattr(self, field.name)) for field in fields(self)))

    @property
    def device(self) -> torch.device:
        """The device of all tensors."""
        return self.ptr.device

    def clone(self) -> Graphs:
        """Return `self`, because no tensor is a view of a larger one (see `Inputs.clone`)."""
        return self


def concatenate(parts: Sequence[Graphs]) -> Graphs:
    """Return the graphs of all parts, one part after another. All parts must have the same label columns."""
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
    """Remove self-loops and duplicates from directed edges `(2, e)` with labels `(e, g)`.

    A duplicate edge gets the label of its first occurrence. The result is sorted by sender, then by receiver.
    """
    no_loop = (edges[0] != edges[1]).nonzero().flatten()
    edges, labels = edges[:, no_loop], labels[no_loop]
    if not edges.numel():
        return edges, labels
    first = first_occurrence(edges).unique()
    order = (edges[0, first] * (int(edges.max()) + 1) + edges[1, first]).argsort()
    return edges[:, first[order]], labels[first[order]]


def first_occurrence(edges: Tensor) -> Tensor:
    """Return `(e,)`: for each edge in `edges (2, e)`, the index of the first edge that is equal to it."""
    if not edges.numel():
        return edges.new_zeros(0)
    key = edges[0] * (int(edges.max()) + 1) + edges[1]
    _, inverse = key.unique(return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(key), dtype=torch.int64)
    return first.scatter_reduce_(0, inverse, torch.arange(len(key)), "amin")[inverse]


def segment_indices(ptr: Tensor, index: Tensor, total: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the positions that the selected segments cover, concatenated, and the offsets of the segments in them.

    Args:
        ptr: `(s + 1,)`. Segment i covers the positions `ptr[i]` to `ptr[i + 1] - 1`.
        index: segments to select, `(b,)`.
        total: number of positions; None to read it from the device.

    Returns:
        The positions, one after another in the order of `index`, and the offsets `(b + 1,)`.
    """
    length = ptr.diff()[index]
    start = torch.cat([length.new_zeros(1), length.cumsum(0)])
    total = int(start[-1]) if total is None else total
    shift = (ptr[index] - start[:-1]).repeat_interleave(length, output_size=total)
    return torch.arange(total, device=ptr.device) + shift, start


def _sorted_by(key: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the indices that sort `key` (integers below n), and the offsets `(n + 1,)` of the sorted values.

    This does not use `bincount`, which waits for the device.
    """
    count = key.new_zeros(n).index_add_(0, key, torch.ones_like(key))
    return key.argsort(stable=True), torch.cat([count.new_zeros(1), count.cumsum(0)])


def _check_labels(kind: str, labels: Tensor, values: tuple[int, ...]) -> None:
    if labels.shape[1] != len(values):
        raise ValueError(f"{kind} labels must have {len(values)} columns, got {labels.shape[1]}")
    if len(labels) and bool(((labels < 0) | (labels >= torch.tensor(values, device=labels.device))).any()):
        raise ValueError(
            f"{kind} labels must be >= 0 and below {values} in each column, "
            f"got {tuple(labels.amin(0).tolist())} to {tuple(labels.amax(0).tolist())}"
        )
