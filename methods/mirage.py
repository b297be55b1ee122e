"""Mirage: frequent sets of computation trees in place of graphs (Gupta et al., ICLR 2024)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import islice, takewhile
from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import (
    Architecture,
    DistillContext,
    Graphs,
    GraphSplit,
    Method,
    RealSet,
    TreeSet,
    Weighting,
    training_graphs,
)

from ._arguments import check_at_least
from ._mirage.colour_refinement import colours
from ._mirage.itemsets import (
    KINDS,
    Itemset,
    TooManyItemsets,
    frequent_itemsets,
    is_frequent,
    ranked_closed_itemsets,
    ranked_itemsets,
)
from ._mirage.transactions import Transactions, absolute_support
from ._mirage.trees import unfold

THOUSANDTHS = 1000  # the search for a budget tries thresholds in steps of 1/1000 of a class
MIN_BYTES = 4  # lower bound of the bytes of a tree set: one tree index, number of trees, support, class


class Mirage(Method):
    """Mine the sets of computation trees of depth `depth` that occur together in many graphs of a class.

        colour every node by its computation tree                     # colour refinement
        for each class c:
            transactions = the set of trees of each training graph of class c
            tree sets of c = itemsets of the transactions with a support of at least theta_c
        store the trees, and each tree set with its support and its class

    The embedding of a node in a message-passing network of `depth` layers depends only on the computation tree of the
    node. The output for a graph therefore depends only on the trees of its nodes. The method uses no network, no
    gradient and no random numbers. The result depends on the data only.

    `theta` gives one threshold per class, a number of graphs or a fraction of the class. Without `theta`, a budget
    determines the synthetic set:

    - With `bytes`, all classes have the same fraction as threshold, chosen such that the set is as large as possible,
      fits into `bytes`, and has at most `ipc` tree sets per class.
    - Without `bytes`, the set contains the `ipc` most frequent tree sets of each class. `cross_class=drop` and
      `itemsets=maximal` are only defined with thresholds. With one of these options, all classes have the same
      fraction as threshold, chosen such that the set is as large as possible with at most `ipc` tree sets per class.

    These fractions are multiples of 1/1000.

    Deviations from the released code:

    - Trees are compared exactly by colour refinement. The canonical strings of the released results distinguish some
      equal trees, and the released code's FP-growth package misses frequent itemsets.
    - With `weighting=sampling` and `frequency=fraction`, networks are trained on tree sets sampled in proportion to the
      fraction of their class's graphs that contain them, as in the paper. With `frequency=count`, they are sampled in
      proportion to the number of these graphs, so that larger classes are sampled more often. The released code
      computes counts and then overwrites them, which is equivalent to `weighting=none`.
    - Any number of classes is supported. `cross_class=drop` drops a tree set that is frequent in two or more classes
      from all of them.
    - `degrees` stores the number of neighbours of each node. Without degrees, GCN is not exact at the leaves. With
      degrees, it is exact for the node that the tree was taken from. The leaves of other nodes with the same tree may
      have other degrees. On NCI1 at depth 2, this holds for most nodes; on molecules whose labels include the degree,
      for none.
    - `multiplicity=mean` repeats a tree as often as it occurs on average in a graph of the tree set. A sum over roots
      then has the same scale as in real graphs. The paper counts each tree once.
    """

    modalities = ("graph",)
    kinds = ("trees",)
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
        frequency: str,
    ):
        """See `conf/method/mirage.yaml` for the arguments.

        Raises:
            ValueError: A value is unknown or out of range, or both `theta` and `bytes` are set.
        """
        for name, value, choices in (
            ("itemsets", itemsets, KINDS),
            ("cross_class", cross_class, ("keep", "drop")),
            ("isolated", isolated, ("keep", "drop")),
            ("multiplicity", multiplicity, ("one", "mean")),
            ("weighting", weighting, ("none", "sampling", "loss")),
            ("frequency", frequency, ("fraction", "count")),
        ):
            if value not in choices:
                raise ValueError(f"method.{name} must be one of {', '.join(choices)}, got {value}")
        check_at_least(0, depth=depth)
        check_at_least(1, most=most, bytes=bytes)
        if theta is not None and bytes is not None:
            raise ValueError(
                f"only one of method.theta and method.bytes can be set, got theta={theta} and bytes={bytes}. "
                "Use method.bytes=null, or method.theta=null"
            )
        if theta is not None and any(t <= 0 for t in theta):
            raise ValueError(
                "method.theta must contain numbers of graphs (>= 1) or fractions of a class in (0, 1), "
                f"got {theta}. Example: method.theta=[0.2,0.2]"
            )
        self.depth, self.theta, self.bytes = depth, theta, bytes
        self.itemsets, self.most, self.cross_class = itemsets, most, cross_class
        self.isolated, self.edge_labels, self.degrees = isolated, edge_labels, degrees
        self.multiplicity, self.weighting, self.frequency = multiplicity, weighting, frequency

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture):
            return reason
        if self.theta is None:
            return None
        if len(self.theta) != real.num_classes:
            return (
                f"method.theta must have one threshold for each of {real.num_classes} classes, got {self.theta}. "
                f"Example: method.theta=[{','.join(['0.2'] * real.num_classes)}]"
            )
        for c, (theta, count) in enumerate(zip(self.theta, real.train.counts.tolist(), strict=True)):
            if theta > count:
                return (
                    f"method.theta must be <= {count}, the number of training graphs, for class "
                    f"{real.class_names[c]!r}, got {theta:g}. "
                    f"Example: method.theta=[{','.join(['0.2'] * real.num_classes)}]"
                )
        return None

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> TreeSet:
        """See `Method`."""
        syn = self.tree_set(real, ipc, ctx.note)
        for note in syn.caveats(ctx.architecture):
            ctx.note(note)
        if not self.edge_labels and training_graphs(real).spec.edges:
            ctx.note(
                "trees are told apart without their edge labels, and show those of the first graph that holds them"
            )
        few = [real.class_names[c] for c, n in enumerate(torch.bincount(syn.labels).tolist()) if n < ipc]
        if self.theta is None and self.bytes is None and few:
            ctx.note(f"fewer than ipc={ipc} sets of trees of class {', '.join(few)}")
        return syn

    def tree_set(self, real: RealSet, ipc: int, note: Callable[[str], None] = lambda _: None) -> TreeSet:
        """Return the set, which depends on the data only. `note` is called with a message if a search ends early."""
        split = training_graphs(real)
        colour = colours(split.graphs, self.depth, self.edge_labels)
        transactions = Transactions(split, colour, isolated=self.isolated == "keep")
        counts = split.counts.tolist()
        if self.theta is not None:
            supports = [
                t if t >= 1 else absolute_support(t, n) for t, n in zip(self.theta, counts, strict=True)
            ]
            mined = self._mine(transactions, supports)
        elif self.bytes is None and self.cross_class == "keep" and self.itemsets != "maximal":
            mined = [self._most_frequent(transactions, c, ipc) for c in range(len(counts))]
        else:
            mined = self._search(transactions, ipc, colour, real, note)
        return self._set_of(mined, split, colour, real)

    def _search(
        self,
        transactions: Transactions,
        ipc: int,
        colour: Tensor,
        real: RealSet,
        note: Callable[[str], None],
    ) -> list[list[Itemset]]:
        """Return the tree sets of each class for the common fraction that gives the largest set within the budget.

        Fractions are tried in decreasing order. With `cross_class=drop` or `itemsets=maximal`, a smaller fraction may
        give fewer tree sets, so all fractions are tried. Otherwise the search ends at the first set that is too large.

        Raises:
            ValueError: No common fraction gives a set within the budget.
        """
        counts = transactions.split.counts.tolist()
        monotone = self.cross_class == "keep" and self.itemsets != "maximal"
        thresholds = (
            tuple(absolute_support(i / THOUSANDTHS, n) for n in counts) for i in range(THOUSANDTHS, 0, -1)
        )
        best, best_size, mined, ended = None, 0, list[list[Itemset]](), ""
        for supports in dict.fromkeys(thresholds):
            previous = mined
            try:
                mined = self._mine(transactions, supports)
            except TooManyItemsets:
                ended = (
                    f"the search ended at {' and '.join(map(str, supports))} graphs of the classes, with more than "
                    f"method.most={self.most} sets of trees"
                )
                break
            if mined == previous:
                continue
            size = self._size(mined, ipc, colour, real)
            if size is None and monotone:
                break
            if size is not None and size > best_size:
                best, best_size = mined, size
        if best is None:
            budget = f"method.bytes={self.bytes}" if self.bytes is not None else f"ipc={ipc}"
            raise ValueError(
                f"{budget} is too small: no threshold common to all classes gives every class a tree set within this "
                f"budget{ended and ' ('}{ended}{ended and ')'}. "
                f"Use a larger budget, method.cross_class=keep, {'a larger method.most, ' if ended else ''}or "
                "method.theta"
            )
        if ended:
            note(f"{ended}: larger sets of the budget, if there are, were not looked at")
        return best

    def _size(self, mined: list[list[Itemset]], ipc: int, colour: Tensor, real: RealSet) -> int | None:
        """Return the size of a set: in bytes if `method.bytes` is given, otherwise the number of tree sets.

        Return None if the set is over the budget, and 0 if a class has no tree set.
        """
        count = sum(map(len, mined))
        if any(len(itemsets) > ipc for itemsets in mined):
            return None
        if self.bytes is not None and MIN_BYTES * count > self.bytes:
            return None
        if not all(mined):
            return 0
        if self.bytes is None:
            return count
        size = sum(self._set_of(mined, training_graphs(real), colour, real).stored_bytes().values())
        return size if size <= self.bytes else None

    def _most_frequent(self, transactions: Transactions, c: int, ipc: int) -> list[Itemset]:
        """Return the `ipc` most frequent tree sets of class `c`, or all if there are fewer; see `ranked_itemsets`.

        A tree set is at most as frequent as its rarest tree. Therefore only trees that are at least as frequent as the
        m-th most frequent tree can be in the m most frequent tree sets. If too few of these tree sets are closed, m is
        increased.
        """
        m, ranking = ipc, ranked_itemsets if self.itemsets == "all" else ranked_closed_itemsets
        while True:
            support = transactions.top_support(c, m)
            ranked = ranking(transactions.tidsets(c, support))
            found = list(islice(takewhile(lambda s: s.support >= support, ranked), ipc))  # noqa: B023
            if len(found) == ipc or support == 1:
                return found
            m *= 4

    def _mine(self, transactions: Transactions, supports: Sequence[float]) -> list[list[Itemset]]:
        """Return the tree sets of each class with at least the given support, after applying `cross_class`."""
        min_supports = [math.ceil(support) for support in supports]
        tidsets = [transactions.tidsets(c, support) for c, support in enumerate(min_supports)]
        mined = [
            frequent_itemsets(ids, support, self.most, self.itemsets)
            for ids, support in zip(tidsets, min_supports, strict=True)
        ]
        if self.cross_class == "keep":
            return mined
        return [
            [
                s
                for s in itemsets
                if not any(
                    is_frequent(s.items, tidsets[d], min_supports[d]) for d in range(len(mined)) if d != c
                )
            ]
            for c, itemsets in enumerate(mined)
        ]

    def _set_of(
        self, mined: list[list[Itemset]], split: GraphSplit, colour: Tensor, real: RealSet
    ) -> TreeSet:
        """Return the synthetic set of the given tree sets of each class.

        Raises:
            ValueError: A class has no tree set.
        """
        for c, itemsets in enumerate(mined):
            if not itemsets:
                raise ValueError(
                    f"every class must have at least one tree set, got none for class {real.class_names[c]!r}. Use a "
                    "smaller method.theta, a larger budget, or method.cross_class=keep"
                )
        graphs, colour, labels = split.graphs.to(torch.device("cpu")), colour.cpu(), split.labels.cpu()
        used = sorted({tree for itemsets in mined for s in itemsets for tree in s.items})
        index = {tree: i for i, tree in enumerate(used)}
        trees = [unfold(graphs, int((colour == tree).nonzero()[0]), self.depth) for tree in used]
        sizes = torch.tensor([len(t.nodes) for t in trees])
        offsets = sizes.cumsum(0) - sizes
        counts = self._counts(used, graphs, colour)
        patterns, pattern_sizes, support, classes = [], [], [], []
        for c, itemsets in enumerate(mined):
            members = (labels == c).nonzero().flatten()
            for s in itemsets:
                pattern = [
                    index[tree]
                    for tree in s.items
                    for _ in range(_multiplicity(counts.get(tree), s, members))
                ]
                patterns += pattern
                pattern_sizes.append(len(pattern))
                support.append(s.support)
                classes.append(c)
        return TreeSet(
            torch.cat([t.nodes for t in trees]),
            torch.cat([t.parents + offset for t, offset in zip(trees, offsets.tolist(), strict=True)]),
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
            tuple(split.counts.tolist()) if self.frequency == "fraction" else None,
        )

    def _counts(self, used: Sequence[int], graphs: Graphs, colour: Tensor) -> dict[int, Tensor]:
        """Return, for each tree, how often it occurs in each graph, `(n,)`; {} if `multiplicity` is `one`."""
        if self.multiplicity == "one":
            return {}
        return {t: torch.bincount(graphs.graph_of[colour == t], minlength=len(graphs)) for t in used}


def _multiplicity(counts: Tensor | None, s: Itemset, members: Tensor) -> int:
    """Return how often a tree set contains a tree: once, or the tree's mean count in the graphs of the tree set."""
    if counts is None:
        return 1
    mask = torch.tensor([(s.tidset >> bit) & 1 for bit in range(len(members))], dtype=torch.bool)
    return max(1, round(float(counts[members[mask]].float().mean())))
