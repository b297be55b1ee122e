"""Computation trees: a node, its neighbours, their neighbours (including the node itself), and so on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dd_bench.api import Graphs, segment_indices


@dataclass(frozen=True)
class Tree:
    """A rooted tree whose nodes are sorted by level.

    Attributes:
        nodes: f labels of each of v nodes, int64 `(v, f)`; the root is first.
        parents: Index of the parent of each node, `(v,)`; the root is its own parent.
        edge_labels: g labels of the edge from each node to its parent, `(v, g)`; zeros for the root.
        degrees: Number of neighbours that each node has in its graph, `(v,)`.
    """

    nodes: Tensor
    parents: Tensor
    edge_labels: Tensor
    degrees: Tensor


def unfold(graphs: Graphs, root: int, depth: int) -> Tree:
    """Return the computation tree of node `root` with `depth` levels below the root."""
    incoming, start = graphs.incoming
    no_edge = graphs.edge_labels.new_zeros(1, graphs.edge_labels.shape[1])
    levels, parents, edge_labels = [torch.tensor([root])], [torch.tensor([0])], [no_edge]
    offset = 0  # index of the first node of the last level
    for _ in range(depth):
        level = levels[-1]
        positions, ptr = segment_indices(start, level)
        edges = incoming[positions]
        levels.append(graphs.edges[0, edges])
        parents.append(torch.repeat_interleave(torch.arange(len(level)), ptr.diff()) + offset)
        edge_labels.append(graphs.edge_labels[edges])
        offset += len(level)
    node = torch.cat(levels)
    return Tree(graphs.nodes[node], torch.cat(parents), torch.cat(edge_labels), start.diff()[node])
