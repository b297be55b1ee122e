"""Mirage: frequent sets of computation trees instead of graphs (Gupta et al., ICLR 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.architecture import Architecture
from dd_bench.base import Context, Method
from dd_bench.graphs import Graphs
from dd_bench.real import RealSet
from dd_bench.real_graphs import GraphSplit, graphs_of
from dd_bench.synthetic_graphs import TreeSet, Weighting

from .mirage_colours import colours
from .mirage_itemsets import KINDS, Itemset, TooMany, frequent
from .mirage_trees import unfolded

THOUSANDTHS = 1000  # steps in which a budget is searched


class Mirage(Method):
    """Keeps the sets of depth-`depth` computation trees that stand together in many graphs of a class.

    A message-passing network of `depth` layers sees of a node nothing but its computation tree, so a graph is the
    set of its trees. No network, no gradient and no randomness: the data decide the set.

    Thresholds are `theta`, one number of graphs (or share of the class) a class. Without them a budget decides: the
    lowest common share whose set fits `bytes`, or, where that is null, the `ipc` most frequent sets of each class.

    Deviations from the released code:

    - Trees are compared by colour refinement, exactly (`mirage_colours`); the canonical strings of the released
      results split equal trees, and its FP-growth package loses frequent sets.
    - Networks are trained with sets drawn in proportion to their support if `weighting=sampling`, as the paper
      says; the released code computes that and overwrites it: `weighting=none`.
    - Any number of classes; `cross_class=drop` drops a set that is frequent in another class too, in all of them.
    - `degrees` stores how many neighbours a node had, without which GCN is not exact at the leaves.
    - `multiplicity=mean` repeats a tree as often as its graphs hold it on average: a sum over roots is then of the
      scale that a network meets in real graphs. The paper counts each tree once.
    """

    modalities = ("graph",)
    citation = "Gupta et al., Mirage: Model-Agnostic Graph Distillation for Graph Classification, ICLR 2024"
    deterministic = True
    smoke: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        *,
        depth: int,
        theta: list[float] | None,
        bytes: int | None,
        itemsets: str,
        most: int,
        cross_class: str,
        isolated: str,
        edge_labels: bool,
        degrees: bool,
        multiplicity: str,
        weighting: Weighting,
    ):
        """Takes the hyper-parameters; see `conf/method/mirage.yaml`.

        Raises:
            ValueError: one of them is out of range.
        """
        for knob, value, known in (
            ("itemsets", itemsets, KINDS),
            ("cross_class", cross_class, ("keep", "drop")),
            ("isolated", isolated, ("keep", "drop")),
            ("multiplicity", multiplicity, ("one", "mean")),
            ("weighting", weighting, ("none", "sampling", "loss")),
        ):
            if value not in known:
                raise ValueError(f"method.{knob}={value}: wanted one of {', '.join(known)}")
        if depth < 0 or most < 1 or (bytes is not None and bytes < 1):
            raise ValueError(
                f"method.depth={depth}, most={most}, bytes={bytes}: wanted >= 0, >= 1, >= 1 or null"
            )
        if theta is not None and bytes is not None:
            raise ValueError("method.theta and method.bytes both say how much to keep. Use one of them")
        if theta is not None and any(t <= 0 for t in theta):
            raise ValueError(
                f"method.theta={theta}: wanted numbers of graphs, or shares of a class in (0, 1)"
            )
        self.depth, self.theta, self.bytes = depth, theta, bytes
        self.itemsets, self.most, self.cross_class = itemsets, most, cross_class
        self.isolated, self.edge_labels, self.degrees = isolated, edge_labels, degrees
        self.multiplicity, self.weighting = multiplicity, weighting

    def unsupported(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().unsupported(real, ipc, architecture):
            return reason
        if self.theta is None:
            return None
        if len(self.theta) != real.num_classes:
            return f"method.theta={self.theta} of {real.num_classes} classes. Use one threshold a class"
        for c, (theta, count) in enumerate(zip(self.theta, real.train.counts.tolist(), strict=True)):
            if theta > count:
                return (
                    f"method.theta={self.theta}: class {real.class_names[c]!r} has {count} training graphs, no tree "
                    f"can be in {theta:g} of them"
                )
        return None

    def distill(self, real: RealSet, ipc: int, ctx: Context) -> TreeSet:
        """See `Method`."""
        layers = ctx.architecture.knobs.get("layers")
        if layers is not None and layers > self.depth:
            ctx.note(
                f"{ctx.architecture.title} has {layers} layers, the trees {self.depth} levels: a root's embedding "
                f"is not that of its node. Use method.depth={layers} or model.layers={self.depth}"
            )
        return self.tree_set(real, ipc)

    def tree_set(self, real: RealSet, ipc: int) -> TreeSet:
        """Returns the set; it needs nothing but the data."""
        split = graphs_of(real)
        colour = colours(split.graphs, self.depth, self.edge_labels)
        pairs = trees_of(split, colour, isolated=self.isolated == "keep")
        counts = split.counts.tolist()
        if self.theta is not None:
            least = [t if t >= 1 else max(1, round(t * n)) for t, n in zip(self.theta, counts, strict=True)]
        elif self.bytes is None:
            least = [top_support(pairs, split, c, ipc) for c in range(len(counts))]
        else:
            least = [1] * len(counts)
        holders = [holders_of(pairs, split, c, t) for c, t in enumerate(least)]
        if self.theta is not None:
            return self._set_of(self._mined(holders, least), split, colour, real)
        return self._within_budget(holders, ipc, split, colour, real)

    def _within_budget(
        self, holders: list[dict[int, int]], ipc: int, split: GraphSplit, colour: Tensor, real: RealSet
    ) -> TreeSet:
        """Returns the largest set that the budget holds; see the class."""
        counts = split.counts.tolist()
        if self.bytes is None:
            top = [self._most_frequent(has, n, ipc) for has, n in zip(holders, counts, strict=True)]
            return self._set_of(self._told_apart(top), split, colour, real)
        low, high, best = 0, THOUSANDTHS + 1, None  # `low` is too much, `high` fits or leaves a class empty
        while high - low > 1:
            middle = (low + high) // 2
            try:
                least = [max(1.0, middle / THOUSANDTHS * n) for n in counts]
                syn = self._set_of(self._mined(holders, least), split, colour, real)
                fits = sum(syn.stored_bytes().values()) <= self.bytes
                low, high, best = (low, middle, syn) if fits else (middle, high, best)
            except TooMany:
                low = middle
            except Empty:
                high = middle
        if best is None:
            raise ValueError(
                f"method.bytes={self.bytes} does not hold a frequent set of trees of every class. Use more bytes"
            )
        return best

    def _most_frequent(self, has: dict[int, int], n: int, ipc: int) -> list[Itemset]:
        """Returns the `ipc` most frequent sets of a class of `n` graphs; of equal support the smaller ones."""
        low, high, found = 1, n + 1, list[Itemset]()  # fewer than `ipc` sets at `high`
        while high - low > 0:
            middle = (low + high) // 2
            try:
                mined = frequent(has, middle, self.most, self.itemsets)
            except TooMany:
                low = middle + 1
                continue
            if len(mined) >= ipc:
                return mined[:ipc]
            found, high = mined, middle
        return found

    def _mined(self, holders: list[dict[int, int]], least: list[float]) -> list[list[Itemset]]:
        """Returns the sets of each class with a support of `least` or more."""
        pairs = zip(holders, least, strict=True)
        return self._told_apart([frequent(has, math.ceil(t), self.most, self.itemsets) for has, t in pairs])

    def _told_apart(self, of_class: list[list[Itemset]]) -> list[list[Itemset]]:
        """Drops the sets that another class has too, if that is wanted."""
        if self.cross_class == "keep":
            return of_class
        sets = [{s.items for s in found} for found in of_class]
        others = [set().union(*(s for d, s in enumerate(sets) if d != c)) for c in range(len(sets))]
        return [[s for s in found if s.items not in others[c]] for c, found in enumerate(of_class)]

    def _set_of(
        self, mined: list[list[Itemset]], split: GraphSplit, colour: Tensor, real: RealSet
    ) -> TreeSet:
        graphs = split.graphs.to(torch.device("cpu"))
        colour, labels = colour.cpu(), split.labels.cpu()
        used = sorted({tree for found in mined for s in found for tree in s.items})
        for c, found in enumerate(mined):
            if not found:
                raise Empty(
                    f"no set of trees is left of class {real.class_names[c]!r}. Use a smaller method.theta, a larger "
                    "budget, or method.cross_class=keep"
                )
        number = {tree: i for i, tree in enumerate(used)}
        held = self._held(used, graphs, colour)
        trees = [unfolded(graphs, int((colour == tree).nonzero()[0]), self.depth) for tree in used]
        sizes = torch.tensor([len(t.nodes) for t in trees])
        start = sizes.cumsum(0) - sizes
        patterns, pattern_sizes, support, classes = [], [], [], []
        for c, found in enumerate(mined):
            members = (labels == c).nonzero().flatten()
            for s in found:
                named = [number[tree] for tree in s.items for _ in range(_times(held.get(tree), s, members))]
                patterns += named
                pattern_sizes.append(len(named))
                support.append(s.support)
                classes.append(c)
        return TreeSet(
            torch.cat([t.nodes for t in trees]),
            torch.cat([t.parents + shift for t, shift in zip(trees, start.tolist(), strict=True)]),
            torch.cat([t.edge_labels for t in trees]),
            torch.cat([t.degrees for t in trees]) if self.degrees else None,
            sizes,
            torch.tensor(patterns),
            torch.tensor(pattern_sizes),
            torch.tensor(support),
            torch.tensor(classes),
            split.spec,
            real.class_names,
            self.weighting,
        )

    def _held(self, used: Sequence[int], graphs: Graphs, colour: Tensor) -> dict[int, Tensor]:
        """Returns how often each graph holds each of the trees, `(n,)` each; nothing where sets name a tree once."""
        if self.multiplicity == "one":
            return {}
        return {t: torch.bincount(graphs.graph_of[colour == t], minlength=len(graphs)) for t in used}


def _times(held: Tensor | None, s: Itemset, members: Tensor) -> int:
    """Returns how often a set names a tree: once, or as often as the graphs of its support hold it on average."""
    if held is None:
        return 1
    bits = torch.tensor([(s.holders >> bit) & 1 for bit in range(len(members))], dtype=torch.bool)
    return max(1, round(float(held[members[bits]].float().mean())))


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
    pairs = (colour * n + graph).unique()
    return torch.stack([pairs // n, pairs % n])


def holders_of(pairs: Tensor, split: GraphSplit, c: int, least: float) -> dict[int, int]:
    """Returns for each tree in `least` or more graphs of class `c` the graphs that hold it, as the bits of a number."""
    tree, graph = pairs[:, split.labels[pairs[1]] == c]
    often = torch.bincount(tree) >= least
    kept = often[tree]
    members = split.of_class(c)
    position = torch.zeros_like(split.labels)
    position[members] = torch.arange(len(members), device=members.device)
    table: dict[int, int] = {}
    for item, bit in zip(tree[kept].tolist(), position[graph[kept]].tolist(), strict=True):
        table[item] = table.get(item, 0) | (1 << bit)
    return table


def top_support(pairs: Tensor, split: GraphSplit, c: int, count: int) -> int:
    """Returns the support of tree number `count` by support in class `c`, or 1 where there are fewer.

    No set of trees that holds a rarer one is among the `count` most frequent.
    """
    support = torch.bincount(pairs[0, split.labels[pairs[1]] == c])
    return max(1, int(support.topk(count).values[-1])) if len(support) >= count else 1


class Empty(ValueError):
    """No set of trees is left of a class."""
