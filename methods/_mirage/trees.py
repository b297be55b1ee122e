"""A node's computation tree, unfolded: its neighbours, theirs, and so on, whoever they were reached from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dd_bench.api import Graphs, segment_indices


@dataclass(frozen=True)
class Tree:
    """A rooted tree, level by level.

    Attributes:
        nodes: labels, int64 `(v, f)`; the root first.
        parents: the node that each is a child of, `(v,)`; the root's is itself.
        edge_labels: of the edge to the parent, `(v, g)`; the root's are zeros.
        degrees: neighbours of the node of the graph that each shows, `(v,)`.
    """

    nodes: Tensor
    parents: Tensor
    edge_labels: Tensor
    degrees: Tensor


def unfolded(graphs: Graphs, root: int, depth: int) -> Tree:
    """Returns the computation tree of node `root` to `depth` levels below it."""
    incoming, start = graphs.incoming
    no_edge = graphs.edge_labels.new_zeros(1, graphs.edge_labels.shape[1])
    shown, parents, marks = [torch.tensor([root])], [torch.tensor([0])], [no_edge]
    before = 0  # nodes above the level that is unfolded
    for _ in range(depth):
        level = shown[-1]
        at, ptr = segment_indices(start, level)
        edges = incoming[at]
        shown.append(graphs.edges[0, edges])
        parents.append(torch.repeat_interleave(torch.arange(len(level)), ptr.diff()) + before)
        marks.append(graphs.edge_labels[edges])
        before += len(level)
    node = torch.cat(shown)
    return Tree(graphs.nodes[node], torch.cat(parents), torch.cat(marks), start.diff()[node])
