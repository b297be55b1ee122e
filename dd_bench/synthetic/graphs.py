"""Synthetic sets of graphs: whole graphs, and sets of computation trees."""

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
from dd_bench.synthetic.base import SyntheticSet, check_source, require_tensors
from dd_bench.synthetic.graph_pictures import draw
from dd_bench.synthetic.permuted import permuted_labels

Weighting = Literal["none", "sampling", "loss"]


class SyntheticGraphs(SyntheticSet):
    """A set whose training samples are graphs.

    Attributes:
        shape: number of values of each node label and each edge label.
        weighting: how `weights()` are used: not at all ("none"), to draw batches ("sampling"), or as weights of the
            loss ("loss").
        whole: whether this is the whole training set. Its ipc is then not checked.
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
        """Return the weight of each sample, float32 `(n,)`, with mean one."""
        return torch.ones(len(self.labels))

    def paper_bytes(self) -> int:
        """Return the size in bytes as papers on graphs count it: two bytes per node label and per endpoint of an edge.

        An undirected edge is counted once. Edge labels take two bytes each and are counted only if they are not all
        equal. The 318 bytes that the paper of Mirage reports on NCI1 are 59 labels and 50 edges. With
        Mirage's thresholds, this implementation finds 51 labels and 43 edges, 274 bytes.
        """
        graphs, _ = self.materialise(torch.device("cpu"))
        source, target = graphs.edges
        once = source < target if graphs.roots is None else torch.ones_like(source, dtype=torch.bool)
        labels = graphs.edge_labels[once]
        counted = labels.numel() if bool((labels != labels[:1]).any()) else 0
        return 2 * (graphs.nodes.numel() + 2 * int(once.sum()) + counted)

    def size_metrics(self) -> dict[str, int]:
        """See `SyntheticSet`. These are the numbers of samples and of nodes, and `paper_bytes`."""
        graphs, labels = self.materialise(torch.device("cpu"))
        return {"samples": len(labels), "nodes": len(graphs.nodes), "paper bytes": self.paper_bytes()}

    def caveats(self, architecture: Architecture) -> list[str]:
        """Return remarks on how this architecture treats the samples differently from whole graphs."""
        return []

    def permute_labels(self, generator: torch.Generator) -> Self:
        """Return the set with permuted labels, see `permuted_labels`."""
        labels = permuted_labels(self.labels, len(self.class_names), generator)
        return replace(self, labels=labels)  # type: ignore[type-var]

    def stored_samples(self) -> Tensor:
        """See `SyntheticSet`."""
        return torch.bincount(self.labels, minlength=len(self.class_names)).double()

    def pictures(self) -> tuple[Tensor, Tensor]:
        """See `SyntheticSet`. The images are drawings of the first ten samples of each class."""
        graphs, labels = self.materialise(torch.device("cpu"))
        first = torch.cat([(labels == c).nonzero()[:10, 0] for c in labels.unique()])
        return draw(graphs[first]), labels[first]


@dataclass(frozen=True, eq=False)
class GraphSet(SyntheticGraphs):
    """Graphs with class labels.

    Attributes:
        graphs: the graphs. They contain an undirected edge in both directions, but the file has only one direction.
        labels: int64 `(n,)`.
        source: for a coreset, the indices of its graphs in the training split.
        whole: whether this is the whole training set. Its ipc is then not checked.
    """

    kind: ClassVar[str] = "graphs"

    graphs: Graphs
    labels: Tensor
    shape: GraphShape
    class_names: tuple[str, ...]
    source: tuple[int, ...] | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError unless the graphs are consistent and all labels are in range."""
        self.graphs.check(self.shape)
        check_labels(self.labels, len(self.graphs), len(self.class_names))
        check_source(self.source, self.labels, self.whole)

    @classmethod
    def coreset(cls, real: RealSet, index: Tensor, whole: bool = False) -> GraphSet:
        """Build a set from the training graphs `index (n,)`."""
        train = training_graphs(real)
        graphs, labels = train.graphs[index].to(torch.device("cpu")), train.labels[index].cpu()
        return cls(graphs, labels, train.spec, real.class_names, tuple(index.tolist()), whole)

    def materialise(self, device: torch.device) -> tuple[Graphs, Tensor]:
        """See `SyntheticSet`."""
        return self.graphs.to(device), self.labels.to(device)

    def tensors(self) -> dict[str, Tensor]:
        """See `SyntheticSet`; integers have the smallest sufficient dtype."""
        g = self.graphs
        once = g.edges[0] < g.edges[1]
        stored = {
            "nodes": g.nodes if g.nodes.is_floating_point() else to_smallest_dtype(g.nodes),
            "edges": to_smallest_dtype(g.edges[:, once]),
            "edge_labels": to_smallest_dtype(g.edge_labels[once]),
            "sizes": to_smallest_dtype(g.num_nodes),
            "labels": to_smallest_dtype(self.labels),
        }
        return {name: tensor for name, tensor in stored.items() if tensor.numel()}

    def describe_tensors(self) -> str:
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
        require_tensors(tensors, "nodes", "sizes", "labels")
        shape = GraphShape(*(tuple(column) for column in config["shape"]))
        nodes, sizes = tensors["nodes"], tensors["sizes"].long()
        check_counts("sizes", sizes, len(nodes))
        once = tensors.get("edges", torch.zeros(2, 0)).long()
        edge_labels = tensors.get("edge_labels", torch.zeros(once.shape[1], len(shape.edges))).long()
        graphs = Graphs(
            nodes if nodes.is_floating_point() else nodes.long(),
            torch.cat([once, once.flip(0)], 1),
            torch.cat([edge_labels, edge_labels]),
            torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]),
        )
        source = None if config["source"] is None else tuple(config["source"])
        return cls(
            graphs, tensors["labels"].long(), shape, class_names, source, bool(config.get("whole", False))
        )


@dataclass(frozen=True, eq=False)
class TreeSet(SyntheticGraphs):
    """Sets of rooted trees with class labels.

    A sample is the disjoint union of the trees of one of these n sets. Networks read out the roots of the trees. The
    edges of a tree point to its root. A tree that belongs to several sets is stored once.

    Attributes:
        nodes: f labels of each of the v nodes in all trees, int64 `(v, f)`. The first node of a tree is its root.
        parents: index of each node's parent, int64 `(v,)`. A root is its own parent.
        edge_labels: g labels of the edge from each node to its parent, int64 `(v, g)`; not used for roots.
        degrees: number of neighbours of each node in the graph that it comes from, int64 `(v,)`; None: not stored.
        sizes: number of nodes of each tree.
        patterns: indices of the trees of every set, concatenated over all sets.
        pattern_sizes: number of trees of each set, `(n,)`.
        support: for each set, number of real graphs of the set's class that contain all trees of the set, `(n,)`.
        labels: int64 `(n,)`.
        class_graphs: number of real graphs of each class. Each `support` is divided by the number for the set's class
            to give the weight. None: the weights are `support`.
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
        """Raise ValueError if the trees or the tree sets are inconsistent, or a label is out of range."""
        v = len(self.nodes)
        check_counts("sizes", self.sizes, v)
        if len(self.parents) != v or len(self.edge_labels) != v:
            raise ValueError(
                f"parents and edge_labels must have one entry per node, {v}, "
                f"got {len(self.parents)} and {len(self.edge_labels)}"
            )
        if self.weighting not in get_args(Weighting):
            raise ValueError(
                f"weighting must be one of {', '.join(get_args(Weighting))}, got {self.weighting!r}"
            )
        root = torch.repeat_interleave(self.sizes.cumsum(0) - self.sizes, self.sizes)
        node = torch.arange(v)
        is_root = node == root
        wrong = (self.parents >= node) & ~is_root | (self.parents < root) | is_root & (self.parents != node)
        if bool(wrong.any()):
            first = int(wrong.nonzero()[0])
            raise ValueError(
                "the parent of a root must be the root itself, and the parent of any other node must be an earlier "
                f"node of the same tree, got parent {int(self.parents[first])} for node {first}"
            )
        check_counts("pattern_sizes", self.pattern_sizes, len(self.patterns))
        if not 0 <= int(self.patterns.min()) <= int(self.patterns.max()) < len(self.sizes):
            raise ValueError(
                f"patterns must be in 0..{len(self.sizes) - 1}, "
                f"got {int(self.patterns.min())}..{int(self.patterns.max())}"
            )
        if len(self.support) != len(self.pattern_sizes) or bool((self.support < 1).any()):
            raise ValueError(
                f"support must be {len(self.pattern_sizes)} integers >= 1, got {len(self.support)} integers, of which "
                f"{int((self.support < 1).sum())} are below 1"
            )
        if self.class_graphs is not None and (
            len(self.class_graphs) != len(self.class_names)
            or any(type(count) is not int or not 1 <= count < 2**63 for count in self.class_graphs)
        ):
            raise ValueError(
                f"class_graphs must be {len(self.class_names)} integers >= 1, got {self.class_graphs}"
            )
        check_labels(self.labels, len(self.pattern_sizes), len(self.class_names))
        self._trees.check(self.shape)

    def depth(self) -> int:
        """Return the depth of the deepest tree; 0 if all trees are single nodes."""
        ancestor = self.parents
        level = (ancestor != torch.arange(len(ancestor))).long()  # distance to `ancestor`
        while not torch.equal(ancestor, ancestor[ancestor]):
            level, ancestor = level + level[ancestor], ancestor[ancestor]  # twice as far
        return int(level.max())

    def caveats(self, architecture: Architecture) -> list[str]:
        """See `SyntheticGraphs`."""
        knobs, title, depth = architecture.knobs, architecture.title, self.depth()
        found, layers = [], knobs.get("layers", 0)
        isolated = self.degrees is not None and not bool(self.degrees.any())  # then all trees are complete
        if layers > depth and not isolated:
            unless = " unless it has no neighbours" if depth == 0 else ""
            found.append(
                f"{title} has {layers} layers, the trees {depth} levels: a root's embedding is not that of its "
                f"node{unless}. Use method.depth={layers} or model.layers={depth}"
            )
        if getattr(architecture.make, "uses_edge_weights", False):
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
        """The trees as separate graphs."""
        root = self.sizes.cumsum(0) - self.sizes
        is_child = torch.ones(len(self.nodes), dtype=torch.bool).index_fill_(0, root, False)
        child = is_child.nonzero().flatten()
        ptr = torch.cat([self.sizes.new_zeros(1), self.sizes.cumsum(0)])
        edges = torch.stack([child, self.parents[child]])
        return Graphs(self.nodes, edges, self.edge_labels[child], ptr, ~is_child, self.degrees)

    def materialise(self, device: torch.device) -> tuple[Graphs, Tensor]:
        """See `SyntheticSet`."""
        trees = self._trees[self.patterns]
        sample = torch.repeat_interleave(torch.arange(len(self.labels)), self.pattern_sizes)
        sizes = torch.zeros_like(self.pattern_sizes).index_add_(0, sample, trees.num_nodes)
        ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        forest = Graphs(trees.nodes, trees.edges, trees.edge_labels, ptr, trees.roots, trees.degrees)
        return forest.to(device), self.labels.to(device)

    def weights(self) -> Tensor:
        """See `SyntheticGraphs`. They are all one if `weighting` is "none". For other values see `class_graphs`."""
        if self.weighting == "none":
            return super().weights()
        weight = self.support.float()
        if self.class_graphs is not None:
            weight = weight / torch.tensor(self.class_graphs)[self.labels]
        return weight / weight.mean()

    def tensors(self) -> dict[str, Tensor]:
        """See `SyntheticSet`; integers have the smallest sufficient dtype."""
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
        return {k: to_smallest_dtype(t) for k, t in stored.items() if t is not None and t.numel()}

    def decoding(self) -> dict[str, int | str]:
        """See `SyntheticSet`."""
        return {"weighting": self.weighting}

    def describe_tensors(self) -> str:
        """See `SyntheticSet`."""
        return """Tree i has `sizes[i]` nodes, its root first; those of all trees stand one after the other. `nodes`
holds the labels of each, `parents` the node that it is a child of, `edge_labels` those of the edge between. Sample i is
the disjoint union of the next `pattern_sizes[i]` trees of `patterns`, read out at their roots; `support` is the
number of real graphs of its class that hold them all."""

    def config(self) -> dict[str, Any]:
        """See `SyntheticSet`."""
        counts = {} if self.class_graphs is None else {"class_graphs": list(self.class_graphs)}
        return {"shape": [list(column) for column in self.shape], "weighting": self.weighting, **counts}

    @classmethod
    def restore(
        cls,
        config: dict[str, Any],
        tensors: dict[str, Tensor],
        class_names: tuple[str, ...],
        preprocess: Preprocess,
    ) -> Self:
        """See `SyntheticSet`."""
        require_tensors(
            tensors, "nodes", "parents", "sizes", "patterns", "pattern_sizes", "support", "labels"
        )
        shape = GraphShape(*(tuple(column) for column in config["shape"]))
        t = {name: tensor.long() for name, tensor in tensors.items()}
        no_labels = torch.zeros(len(t["nodes"]), len(shape.edges), dtype=torch.int64)
        return cls(
            t["nodes"],
            t["parents"],
            t.get("edge_labels", no_labels),
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


def check_counts(name: str, counts: Tensor, total: int) -> None:
    """Raise ValueError unless `counts (n,)` are integers >= 1 that sum to `total`.

    Each count is compared with `total` first, so that the sum of forged counts cannot overflow to `total`.
    """
    if (
        counts.ndim != 1
        or not len(counts)
        or bool(((counts < 1) | (counts > total)).any())
        or counts.sum() != total
    ):
        raise ValueError(
            f"{name} must be integers >= 1 that sum to {total}, got {counts.flatten().tolist()[:5]}"
        )


def to_smallest_dtype(values: Tensor) -> Tensor:
    """Convert integers >= 0 to the smallest integer dtype that can represent them."""
    largest = int(values.max()) if values.numel() else 0
    limits = ((torch.uint8, 255), (torch.int16, 2**15 - 1), (torch.int32, 2**31 - 1))
    dtype = next((dtype for dtype, limit in limits if largest <= limit), torch.int64)
    return values.to(dtype).contiguous()
