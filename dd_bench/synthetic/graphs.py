"""The synthetic sets of graphs: whole graphs, and sets of computation trees."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.graph_dataset import training_graphs
from dd_bench.data.graphs import Graphs, GraphShape
from dd_bench.data.labels import check_labels
from dd_bench.data.preprocess import Identity, Preprocess
from dd_bench.models.architecture import Architecture
from dd_bench.synthetic.base import SyntheticSet, require
from dd_bench.synthetic.graph_pictures import draw

Weighting = Literal["none", "sampling", "loss"]


class SyntheticGraphs(SyntheticSet):
    """A set whose training samples are graphs.

    Attributes:
        shape: values of the labels of nodes and edges.
        weighting: what `weights()` do: nothing, draw the batches, or weigh the loss.
        whole: this is the whole training set, and its ipc only names a column.
    """

    modality = "graph"
    task = "graph-ml"
    protocol = "graph-500"
    main_tensors = "nodes, edges, sizes, labels"
    shape: GraphShape
    weighting: Weighting = "none"
    whole: bool = False
    lr = None
    preprocess = Identity()

    @abstractmethod
    def materialise(self, device: torch.device) -> tuple[Graphs, Tensor]:
        """See `SyntheticSet`."""

    def weights(self) -> Tensor:
        """Return the weight of each sample, float32 `(n,)`, of mean one."""
        return torch.ones(len(self.labels))

    def paper_bytes(self) -> int:
        """Return the size as papers on graphs count it: two bytes a node label and an edge's end, an edge once.

        Edge labels are counted where there is more than one of them. Mirage's 318 bytes on NCI1 are 59 labels and 50
        edges; at its thresholds there are 51 and 43 here, 274 bytes.
        """
        graphs, _ = self.materialise(torch.device("cpu"))
        once = (
            graphs.edges[0] < graphs.edges[1]
            if graphs.roots is None
            else torch.ones_like(graphs.edges[0]).bool()
        )
        labels = graphs.edge_labels[once]
        marks = labels.numel() if bool((labels != labels[:1]).any()) else 0
        return 2 * (graphs.nodes.numel() + 2 * int(once.sum()) + marks)

    def size_metrics(self) -> dict[str, int]:
        """See `SyntheticSet`: samples, nodes and `paper_bytes` of the whole set."""
        graphs, labels = self.materialise(torch.device("cpu"))
        return {"samples": len(labels), "nodes": len(graphs.nodes), "paper bytes": self.paper_bytes()}

    def caveats(self, architecture: Architecture) -> list[str]:
        """Return what a network of this architecture does not see of these samples as it would of whole graphs."""
        return []

    def permuted(self, generator: torch.Generator) -> Self:
        """Return the set with its labels dealt out anew: a control that knows sizes, not classes.

        Every class's samples get the labels of all classes in proportion, as far as whole samples allow: a plain
        shuffle of few samples is often the set itself. Of one sample a class a deal is still one of few.
        """
        order = self.labels.argsort(stable=True)
        order = order[torch.randperm(len(order), generator=generator)]
        order = order[self.labels[order].argsort(stable=True)]  # class by class, shuffled within
        counts = torch.bincount(self.labels, minlength=len(self.class_names))
        rank = torch.cat([torch.arange(int(n)) for n in counts])
        dealt = self.labels.sort().values
        offset = torch.rand(len(counts), generator=generator)
        place = (rank + offset[dealt]) / counts[dealt]  # label by label, evenly over all samples
        labels = torch.empty_like(self.labels)
        labels[order] = dealt[place.argsort(stable=True)]
        return replace(self, labels=labels)  # type: ignore[type-var]

    def check_ipc(self, ipc: int) -> None:
        """See `SyntheticSet`; for graphs the most that a class may have."""
        counts = torch.bincount(self.labels, minlength=len(self.class_names))
        c = int(counts.argmax())
        if int(counts[c]) > ipc:
            raise ValueError(
                f"ipc={ipc}, but class {self.class_names[c]!r} has {int(counts[c])} samples. Use ipc={int(counts[c])}, "
                "which bounds the samples of a class"
            )

    def pictures(self) -> tuple[Tensor, Tensor]:
        """See `SyntheticSet`: drawings of the first ten of each class."""
        graphs, labels = self.materialise(torch.device("cpu"))
        first = torch.cat([(labels == c).nonzero()[:10, 0] for c in labels.unique()])
        return draw(graphs[first]), labels[first]


@dataclass(frozen=True, eq=False)
class GraphSet(SyntheticGraphs):
    """Graphs with classes.

    Attributes:
        graphs: both directions of an undirected edge are there; one of them is stored.
        labels: int64 `(n,)`.
        source: for a coreset, the indices of its graphs in the training split.
        whole: this is the whole training set, and its ipc only names a column.
    """

    kind: ClassVar[str] = "graphs"

    graphs: Graphs
    labels: Tensor
    shape: GraphShape
    class_names: tuple[str, ...]
    source: tuple[int, ...] | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError unless the graphs are whole and every label names something."""
        self.graphs.check(self.shape)
        check_labels(self.labels, len(self.graphs), len(self.class_names))

    @classmethod
    def coreset(cls, real: RealSet, index: Tensor, whole: bool = False) -> GraphSet:
        """Build the set of the training graphs `index (n,)`."""
        train = training_graphs(real)
        graphs, labels = train.graphs[index].to(torch.device("cpu")), train.labels[index].cpu()
        return cls(graphs, labels, train.spec, real.class_names, tuple(index.tolist()), whole)

    def materialise(self, device: torch.device) -> tuple[Graphs, Tensor]:
        """See `SyntheticSet`."""
        return self.graphs.to(device), self.labels.to(device)

    def check_ipc(self, ipc: int) -> None:
        """See `SyntheticGraphs`."""
        if not self.whole:
            super().check_ipc(ipc)

    def tensors(self) -> dict[str, Tensor]:
        """See `SyntheticSet`; in the shortest integers that hold them."""
        g = self.graphs
        once = g.edges[0] < g.edges[1]
        stored = {
            "nodes": g.nodes if g.nodes.is_floating_point() else shortest(g.nodes),
            "edges": shortest(g.edges[:, once]),
            "edge_labels": shortest(g.edge_labels[once]),
            "sizes": shortest(g.num_nodes),
            "labels": shortest(self.labels),
        }
        return {name: tensor for name, tensor in stored.items() if tensor.numel()}

    def explained(self) -> str:
        """See `SyntheticSet`."""
        return """Graph i has `sizes[i]` nodes; those of all graphs stand one after the other. `nodes` holds the labels
of each, or a weight for each value of a label; `edges` each undirected edge once, by the numbers of its nodes."""

    def config(self) -> dict[str, Any]:
        """See `SyntheticSet`."""
        return {
            "shape": [list(column) for column in self.shape],
            "source": None if self.source is None else list(self.source),
            **({"whole": True} if self.whole else {}),
        }

    @classmethod
    def restore(
        cls,
        config: dict[str, Any],
        tensors: dict[str, Tensor],
        class_names: tuple[str, ...],
        preprocess: Preprocess,
    ) -> Self:
        """See `SyntheticSet`."""
        require(tensors, "nodes", "sizes", "labels")
        shape = GraphShape(*(tuple(column) for column in config["shape"]))
        nodes, sizes = tensors["nodes"], tensors["sizes"].long()
        if bool((sizes < 1).any()) or int(sizes.sum()) != len(nodes):
            raise ValueError(f"sizes of {int(sizes.sum())} nodes, there are {len(nodes)}")
        once = tensors.get("edges", torch.zeros(2, 0)).long()
        marks = tensors.get("edge_labels", torch.zeros(once.shape[1], len(shape.edges))).long()
        graphs = Graphs(
            nodes if nodes.is_floating_point() else nodes.long(),
            torch.cat([once, once.flip(0)], 1),
            torch.cat([marks, marks]),
            torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]),
        )
        source = None if config["source"] is None else tuple(config["source"])
        return cls(
            graphs, tensors["labels"].long(), shape, class_names, source, bool(config.get("whole", False))
        )


@dataclass(frozen=True, eq=False)
class TreeSet(SyntheticGraphs):
    """Set of rooted trees with classes; a sample is the disjoint union of a set's trees, read out at their roots.

    The edges of a tree point to its root. A tree that several sets name is stored once.

    Attributes:
        nodes: labels of the nodes of all trees, int64 `(v, f)`; a tree begins with its root.
        parents: the node that each is a child of, int64 `(v,)`; a root's is itself.
        edge_labels: of the edge to the parent, int64 `(v, g)`; a root's mean nothing.
        degrees: neighbours of a node in the graph that it comes from, int64 `(v,)`.
        sizes: nodes of each tree.
        patterns: trees of all sets, one set after the other.
        pattern_sizes: number of trees of each set, `(n,)`.
        support: real graphs of its class that hold all trees of a set, `(n,)`.
        labels: int64 `(n,)`.
        class_graphs: real graphs of each class, of which weights are fractions; None: weights are the supports.
    """

    kind: ClassVar[str] = "trees"
    main_tensors = "nodes, parents, sizes, patterns, labels"

    nodes: Tensor
    parents: Tensor
    edge_labels: Tensor
    degrees: Tensor | None
    sizes: Tensor
    patterns: Tensor
    pattern_sizes: Tensor
    support: Tensor
    labels: Tensor
    shape: GraphShape
    class_names: tuple[str, ...]
    weighting: Weighting = "none"
    class_graphs: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless trees and sets are whole and every label names something."""
        v = len(self.nodes)
        if not len(self.sizes) or bool((self.sizes < 1).any()):
            raise ValueError(
                f"trees of {self.sizes.tolist()[:5]} nodes: a set has a tree or more, each of a node or more"
            )
        if int(self.sizes.sum()) != v or len(self.parents) != v or len(self.edge_labels) != v:
            raise ValueError(f"trees of {int(self.sizes.sum())} nodes, there are {v}")
        if self.weighting not in get_args(Weighting):
            raise ValueError(f"weighting {self.weighting!r}; wanted one of {', '.join(get_args(Weighting))}")
        root = torch.repeat_interleave(self.sizes.cumsum(0) - self.sizes, self.sizes)
        at = torch.arange(v)
        wrong = (
            (self.parents >= at) & (at != root) | (self.parents < root) | (at == root) & (self.parents != at)
        )
        if bool(wrong.any()):
            first = int(wrong.nonzero()[0])
            raise ValueError(
                f"node {first} has parent {int(self.parents[first])}: a root is its own, another node's stands before "
                "it in its tree"
            )
        if not len(self.patterns):
            raise ValueError("there are no sets of trees")
        if int(self.pattern_sizes.sum()) != len(self.patterns) or bool((self.pattern_sizes < 1).any()):
            raise ValueError(f"sets of {int(self.pattern_sizes.sum())} trees, {len(self.patterns)} are named")
        if not 0 <= int(self.patterns.min()) <= int(self.patterns.max()) < len(self.sizes):
            raise ValueError(f"a set names a tree outside 0..{len(self.sizes) - 1}")
        if len(self.support) != len(self.pattern_sizes) or bool((self.support < 1).any()):
            raise ValueError("every set has a support of one or more")
        if self.class_graphs is not None and (
            len(self.class_graphs) != len(self.class_names) or min(self.class_graphs) < 1
        ):
            raise ValueError(
                f"{len(self.class_names)} classes have graphs, one or more each: {self.class_graphs}"
            )
        check_labels(self.labels, len(self.pattern_sizes), len(self.class_names))
        self._trees.check(self.shape)

    def depth(self) -> int:
        """Return the levels of the deepest tree; 0 for roots alone."""
        level = torch.zeros_like(self.parents)
        for _ in range(len(level)):
            deeper = torch.where(self.parents == torch.arange(len(level)), 0, level[self.parents] + 1)
            if torch.equal(deeper, level):
                break
            level = deeper
        return int(level.max())

    def caveats(self, architecture: Architecture) -> list[str]:
        """See `SyntheticGraphs`."""
        knobs, title, depth = architecture.knobs, architecture.title, self.depth()
        found, layers = [], knobs.get("layers", 0)
        alone = self.degrees is not None and not bool(self.degrees.any())  # whole, however deep they were cut
        if layers > depth and not alone:
            unless = " unless it has no neighbours" if depth == 0 else ""
            found.append(
                f"{title} has {layers} layers, the trees {depth} levels: a root's embedding is not that of its "
                f"node{unless}. Use method.depth={layers} or model.layers={depth}"
            )
        if getattr(architecture.make, "weighs_edges", False):
            found.append(
                f"{title} divides by degrees, which these trees do not hold: a leaf counts as a node without "
                "neighbours. Use method.degrees=true"
                if self.degrees is None
                else f"{title} divides by degrees, and these are of the node that a tree was cut from: for others of "
                "the same tree it is exact where their leaves have the same"
            )
        if knobs.get("norm") == "batch":
            found.append("BatchNorm sees the nodes of trees while it trains, of which leaves are the most")
        return found

    @property
    def _trees(self) -> Graphs:
        """The trees, each a graph of its own."""
        root = self.sizes.cumsum(0) - self.sizes
        child = torch.ones(len(self.nodes), dtype=torch.bool).index_fill_(0, root, False)
        at = child.nonzero().flatten()
        ptr = torch.cat([self.sizes.new_zeros(1), self.sizes.cumsum(0)])
        edges = torch.stack([at, self.parents[at]])
        return Graphs(self.nodes, edges, self.edge_labels[at], ptr, ~child, self.degrees)

    def materialise(self, device: torch.device) -> tuple[Graphs, Tensor]:
        """See `SyntheticSet`."""
        trees = self._trees[self.patterns]
        of_pattern = torch.repeat_interleave(torch.arange(len(self.labels)), self.pattern_sizes)
        sizes = torch.zeros_like(self.pattern_sizes).index_add_(0, of_pattern, trees.num_nodes)
        ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        forest = Graphs(trees.nodes, trees.edges, trees.edge_labels, ptr, trees.roots, trees.degrees)
        return forest.to(device), self.labels.to(device)

    def weights(self) -> Tensor:
        """See `SyntheticGraphs`: the shares of their classes that hold them, unless `weighting` is none."""
        if self.weighting == "none":
            return super().weights()
        weight = self.support.float()
        if self.class_graphs is not None:
            weight = weight / torch.tensor(self.class_graphs)[self.labels]
        return weight / weight.mean()

    def tensors(self) -> dict[str, Tensor]:
        """See `SyntheticSet`; in the shortest integers that hold them."""
        names = (
            "nodes",
            "parents",
            "edge_labels",
            "degrees",
            "sizes",
            "patterns",
            "pattern_sizes",
            "support",
        )
        stored = {name: getattr(self, name) for name in (*names, "labels")}
        return {k: shortest(t) for k, t in stored.items() if t is not None and t.numel()}

    def explained(self) -> str:
        """See `SyntheticSet`."""
        return """Tree i has `sizes[i]` nodes, its root first; those of all trees stand one after the other. `nodes`
holds the labels of each, `parents` the node that it is a child of, `edge_labels` those of the edge between. Sample i is
the disjoint union of the next `pattern_sizes[i]` trees of `patterns`, read out at their roots; `support` is the
number of real graphs of its class that hold them all."""

    def config(self) -> dict[str, Any]:
        """See `SyntheticSet`."""
        of = {} if self.class_graphs is None else {"class_graphs": list(self.class_graphs)}
        return {"shape": [list(column) for column in self.shape], "weighting": self.weighting, **of}

    @classmethod
    def restore(
        cls,
        config: dict[str, Any],
        tensors: dict[str, Tensor],
        class_names: tuple[str, ...],
        preprocess: Preprocess,
    ) -> Self:
        """See `SyntheticSet`."""
        require(tensors, "nodes", "parents", "sizes", "patterns", "pattern_sizes", "support", "labels")
        shape = GraphShape(*(tuple(column) for column in config["shape"]))
        t = {name: tensor.long() for name, tensor in tensors.items()}
        marks = t.get("edge_labels", torch.zeros(len(t["nodes"]), len(shape.edges), dtype=torch.int64))
        return cls(
            t["nodes"],
            t["parents"],
            marks,
            t.get("degrees"),
            t["sizes"],
            t["patterns"],
            t["pattern_sizes"],
            t["support"],
            t["labels"],
            shape,
            class_names,
            config["weighting"],
            tuple(config["class_graphs"]) if "class_graphs" in config else None,
        )


def shortest(values: Tensor) -> Tensor:
    """Return whole numbers >= 0 in the shortest integer type that holds them."""
    most = int(values.max()) if values.numel() else 0
    fits = ((torch.uint8, 255), (torch.int16, 2**15 - 1), (torch.int32, 2**31 - 1))
    kind = next((kind for kind, limit in fits if most <= limit), torch.int64)
    return values.to(kind).contiguous()
