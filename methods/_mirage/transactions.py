"""Which graphs of a class hold which trees: the transactions that are mined."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dd_bench.api import GraphSplit

TABLE = 2**24  # pairs of tree and graph that are looked up at once


def graphs_in(share: float, n: int) -> int:
    """Returns how many of `n` graphs a share is, rounded up."""
    return max(1, math.ceil(round(share * n, 9)))


def trees_of(split: GraphSplit, colour: Tensor, isolated: bool) -> Tensor:
    """Returns which graph holds which tree, once each: rows of (tree, graph), `(2, pairs)`.

    Args:
        split: the graphs.
        colour: the tree of each node, `(v,)`.
        isolated: whether the trees of nodes without neighbours count.
    """
    graph, n = split.graphs.graph_of, len(split)
    if not isolated:
        linked = torch.zeros_like(colour, dtype=torch.bool)
        linked[split.graphs.edges[1]] = True
        graph, colour = graph[linked], colour[linked]
    pairs = colour * n + graph
    if pairs.device.type == "cpu":
        pairs = torch.from_numpy(np.sort(pairs.numpy()))  # vectorised, check_store torch's
    once = pairs.unique_consecutive() if pairs.device.type == "cpu" else pairs.unique()
    return torch.stack([once // n, once % n])


class Transactions:
    """The trees that the graphs of a split hold, asked for class by class at thresholds that mostly fall."""

    def __init__(self, split: GraphSplit, colour: Tensor, isolated: bool):
        """Takes what `trees_of` takes."""
        self.split, self._pairs = split, trees_of(split, colour, isolated)
        self._known: dict[int, tuple[int, dict[int, int]]] = {}

    def holders(self, c: int, least: int) -> dict[int, int]:
        """Returns `holders_of` the trees in `least` or more graphs of class `c`, and perhaps of some rarer ones."""
        floor, table = self._known.get(c, (0, {}))
        if not 0 < floor <= least:
            floor = max(1, least // 2) if floor else least  # a search goes on downwards
            table = holders_of(self._pairs, self.split, c, floor)
            self._known[c] = floor, table
        return table

    def top_support(self, c: int, count: int) -> int:
        """Returns the support of tree number `count` by support in class `c`, or 1 where there are fewer.

        No set of trees that holds a rarer one is among the `count` most frequent.
        """
        support = torch.bincount(self._pairs[0, self.split.labels[self._pairs[1]] == c])
        return max(1, int(support.topk(count).values[-1])) if len(support) >= count else 1


def holders_of(pairs: Tensor, split: GraphSplit, c: int, least: float) -> dict[int, int]:
    """Returns for each tree in `least` or more graphs of class `c` the graphs that hold it, as the bits of a number."""
    tree, graph = pairs[:, split.labels[pairs[1]] == c]
    often = torch.bincount(tree) >= least
    kept = often[tree]
    members = split.of_class(c)
    position = torch.zeros_like(split.labels)
    position[members] = torch.arange(len(members), device=members.device)
    named, row = tree[kept].unique_consecutive(return_inverse=True)  # the trees come in order
    bit = position[graph[kept]].cpu()
    table: dict[int, int] = {}
    rows = max(1, TABLE // max(1, len(members)))
    for first, some in enumerate(named.cpu().split(rows)):
        mine = (row >= first * rows) & (row < (first + 1) * rows)
        held = torch.zeros(len(some), len(members), dtype=torch.bool)
        held[row[mine].cpu() - first * rows, bit[mine.cpu()]] = True
        packed = np.packbits(held.numpy(), axis=1, bitorder="little")
        table |= {int(t): int.from_bytes(b.tobytes(), "little") for t, b in zip(some, packed, strict=True)}
    return table
