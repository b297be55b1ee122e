"""Mirage: frequent sets of computation trees instead of graphs (Gupta et al., ICLR 2024)."""

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

from ._mirage.colour_refinement import colours
from ._mirage.itemsets import KINDS, Itemset, TooMany, frequent, is_frequent, ranked, ranked_closed
from ._mirage.transactions import Transactions, graphs_in
from ._mirage.trees import unfolded

THOUSANDTHS = 1000  # steps in which a budget is searched
BYTES_A_SET = 4  # at the least: a tree's number, how many there are, support and class


class Mirage(Method):
    """Keeps the sets of depth-`depth` computation trees that stand together in many graphs of a class.

    A message-passing network of `depth` layers sees of a node nothing but its computation tree, so a graph is the
    set of its trees. No network, no gradient and no randomness: the data decide the set.

    Thresholds are `theta`, one number of graphs (or share of the class) a class. Without them a budget decides: the
    largest set of one common share that fits `bytes` and leaves no class more than `ipc`; or, where `bytes` is null,
    the `ipc` most frequent sets of each class; of `cross_class=drop` and `itemsets=maximal`, which need thresholds to
    mean anything, the largest set of one common share that leaves no class more than `ipc`. Shares are whole
    thousandths.

    Deviations from the released code:

    - Trees are compared by colour refinement, exactly (`mirage_colours`); the canonical strings of the released
      results split equal trees, and its FP-growth package loses frequent sets.
    - Networks are trained with sets drawn in proportion to the share of their class's graphs that hold them if
      `weighting=sampling` and `frequency=fraction`, as the paper says. `frequency=count` draws by numbers of graphs,
      and so larger classes more often. The released code computes counts and overwrites them: `weighting=none`.
    - Any number of classes; `cross_class=drop` drops a set that is frequent in another class too, in all of them.
    - `degrees` stores how many neighbours a node had, without which GCN is not exact at the leaves. With them it is
      exact for the node that a tree was cut from; others of the same tree may have leaves of other degrees (on NCI1 at
      depth 2 most do, on molecules whose labels hold the degree none).
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
        frequency: str,
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
            ("frequency", frequency, ("fraction", "count")),
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
        self.multiplicity, self.weighting, self.frequency = multiplicity, weighting, frequency

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture):
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
        """Returns the set; it needs nothing but the data. `note` is told where a search ended early."""
        split = training_graphs(real)
        colour = colours(split.graphs, self.depth, self.edge_labels)
        held = Transactions(split, colour, isolated=self.isolated == "keep")
        counts = split.counts.tolist()
        if self.theta is not None:
            least = [t if t >= 1 else graphs_in(t, n) for t, n in zip(self.theta, counts, strict=True)]
            return self._set_of(self._mined(held, least), split, colour, real)
        if self.bytes is None and self.cross_class == "keep" and self.itemsets != "maximal":
            top = [self._most_frequent(held, c, ipc) for c in range(len(counts))]
            return self._set_of(top, split, colour, real)
        return self._largest(held, ipc, colour, real, note)

    def _largest(
        self,
        held: Transactions,
        ipc: int,
        colour: Tensor,
        real: RealSet,
        note: Callable[[str], None],
    ) -> TreeSet:
        """Returns the largest set of a common share that the budget holds.

        Shares are tried from the whole class down, all of them: where sets are dropped that another class has, or
        hidden by larger ones, a lower share may give less. Otherwise the first that is too much is the end.
        """
        split, best, size, ended = held.split, None, 0, ""
        counts = split.counts.tolist()
        rising = self.cross_class == "keep" and self.itemsets != "maximal"
        shares = (tuple(graphs_in(i / THOUSANDTHS, n) for n in counts) for i in range(THOUSANDTHS, 0, -1))
        mined: list[list[Itemset]] = []
        for least in dict.fromkeys(shares):
            before = mined
            try:
                mined = self._mined(held, least)
                if mined == before:
                    continue
                if self.bytes is None or any(len(found) > ipc for found in mined):
                    large = sum(map(len, mined)) if all(map(len, mined)) else 0
                    fits = all(len(found) <= ipc for found in mined)
                elif BYTES_A_SET * sum(map(len, mined)) > self.bytes:  # whatever its trees are
                    large, fits = 0, False
                else:
                    syn = self._set_of(mined, split, colour, real)
                    large = sum(syn.stored_bytes().values())
                    fits = large <= self.bytes
            except TooMany:
                ended = (
                    f"the search ended at {' and '.join(map(str, least))} graphs of the classes, with more than "
                    f"method.most={self.most} sets of trees"
                )
                break
            except Empty:
                continue
            if fits and large > size:
                best, size = mined, large
            elif not fits and rising:
                break
        if best is None:
            wanted = f"method.bytes={self.bytes}" if self.bytes is not None else f"ipc={ipc}"
            raise ValueError(
                f"{wanted} does not hold a set of trees of every class at any common share{ended and '; '}{ended}. Use "
                f"more, method.cross_class=keep, {'a larger method.most, ' if ended else ''}or method.theta"
            )
        if ended:
            note(f"{ended}: larger sets of the budget, if there are, were not looked at")
        return self._set_of(best, split, colour, real)

    def _most_frequent(self, held: Transactions, c: int, ipc: int) -> list[Itemset]:
        """Returns the `ipc` most frequent sets of class `c`, or all where there are fewer; see `ranked`.

        No set that holds a tree rarer than the m-th is more frequent than it, so m trees are looked at first, and
        more where closed sets are too few among them.
        """
        m, ranking = ipc, ranked if self.itemsets == "all" else ranked_closed
        while True:
            least = held.top_support(c, m)
            often = takewhile(lambda s: s.support >= least, ranking(held.holders(c, least)))  # noqa: B023
            found = list(islice(often, ipc))
            if len(found) == ipc or least == 1:
                return found
            m *= 4

    def _mined(self, held: Transactions, least: Sequence[float]) -> list[list[Itemset]]:
        """Returns the sets of each class with a support of `least` or more; of `drop`, in no other class that often."""
        whole = [math.ceil(t) for t in least]
        holders = [held.holders(c, t) for c, t in enumerate(whole)]
        mined = [frequent(has, t, self.most, self.itemsets) for has, t in zip(holders, whole, strict=True)]
        if self.cross_class == "keep":
            return mined
        return [
            [
                s
                for s in found
                if not any(is_frequent(s.items, holders[d], t) for d, t in enumerate(whole) if d != c)
            ]
            for c, found in enumerate(mined)
        ]

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
            tuple(split.counts.tolist()) if self.frequency == "fraction" else None,
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


class Empty(ValueError):
    """No set of trees is left of a class."""
