"""Transactions for itemset mining: the computation trees that occur in each graph."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dd_bench.api import GraphSplit

TABLE = 2**24  # maximum entries of the boolean table (tree, graph) that is built at once


def absolute_support(fraction: float, n: int) -> int:
    """Return the given fraction of `n` graphs as a number of graphs: `fraction * n` rounded up, at least 1."""
    return max(1, math.ceil(round(fraction * n, 9)))


def tree_graph_pairs(split: GraphSplit, colour: Tensor, isolated: bool) -> Tensor:
    """Return the distinct pairs of a tree and a graph that contains it, `(2, pairs)`, sorted by tree.

    Args:
        split: Graphs.
        colour: Colour of each node, `(v,)`, which identifies the node's computation tree.
        isolated: Whether to include the trees of nodes without neighbours.
    """
    graph, n = split.graphs.graph_of, len(split)
    if not isolated:
        linked = torch.zeros_like(colour, dtype=torch.bool)
        linked[split.graphs.edges[1]] = True
        graph, colour = graph[linked], colour[linked]
    pairs = colour * n + graph
    if pairs.device.type == "cpu":
        pairs = torch.from_numpy(np.sort(pairs.numpy()))  # NumPy's sort is vectorised, torch's is not
    distinct = pairs.unique_consecutive() if pairs.device.type == "cpu" else pairs.unique()
    return torch.stack([distinct // n, distinct % n])


class Transactions:
    """The trees in the graphs of a split, with a cache of the tidsets of each class."""

    def __init__(self, split: GraphSplit, colour: Tensor, isolated: bool):
        """See `tree_graph_pairs` for the arguments."""
        self.split, self._pairs = split, tree_graph_pairs(split, colour, isolated)
        self._cached: dict[int, tuple[int, dict[int, int]]] = {}

    def tidsets(self, c: int, min_support: int) -> dict[int, int]:
        """Return the tidset of each tree that occurs in at least `min_support` graphs of class `c`.

        The result can also contain rarer trees, because it is cached for calls with a lower threshold.
        """
        cached_support, tidsets = self._cached.get(c, (0, {}))
        if not 0 < cached_support <= min_support:
            cached_support = (
                max(1, min_support // 2) if cached_support else min_support
            )  # the next call usually has a lower threshold
            tidsets = tidsets_of(self._pairs, self.split, c, cached_support)
            self._cached[c] = cached_support, tidsets
        return tidsets

    def top_support(self, c: int, count: int) -> int:
        """Return the support of the `count`-th most frequent tree of class `c`, or 1 if there are fewer trees.

        An itemset that contains a tree with a lower support cannot be among the `count` most frequent itemsets.
        """
        support = torch.bincount(self._pairs[0, self.split.labels[self._pairs[1]] == c])
        return max(1, int(support.topk(count).values[-1])) if len(support) >= count else 1


def tidsets_of(pairs: Tensor, split: GraphSplit, c: int, min_support: float) -> dict[int, int]:
    """Return the tidset of each tree that occurs in at least `min_support` graphs of class `c`.

    Bit i of a tidset is graph i of the class.
    """
    tree, graph = pairs[:, split.labels[pairs[1]] == c]
    frequent = (torch.bincount(tree) >= min_support)[tree]
    members = split.of_class(c)
    position = torch.zeros_like(split.labels)
    position[members] = torch.arange(len(members), device=members.device)
    trees, row = tree[frequent].unique_consecutive(return_inverse=True)  # pairs are sorted by tree
    column = position[graph[frequent]].cpu()
    tidsets: dict[int, int] = {}
    rows = max(1, TABLE // max(1, len(members)))
    for chunk, part in enumerate(trees.cpu().split(rows)):
        in_chunk = (row >= chunk * rows) & (row < (chunk + 1) * rows)
        table = torch.zeros(len(part), len(members), dtype=torch.bool)
        table[row[in_chunk].cpu() - chunk * rows, column[in_chunk.cpu()]] = True
        packed = np.packbits(table.numpy(), axis=1, bitorder="little")
        tidsets |= {int(t): int.from_bytes(b.tobytes(), "little") for t, b in zip(part, packed, strict=True)}
    return tidsets
