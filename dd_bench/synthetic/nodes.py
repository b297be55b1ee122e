"""Synthetic sets of nodes: features, labels, and optionally edges among the nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.labels import check_labels
from dd_bench.data.node_dataset import training_nodes
from dd_bench.data.nodes import Adjacency, NodeGraph, NodeShape
from dd_bench.data.preprocess import Identity, Preprocess
from dd_bench.models.architecture import Architecture
from dd_bench.synthetic.base import SyntheticSet, check_finite, check_source, require_tensors
from dd_bench.synthetic.graphs import to_smallest_dtype
from dd_bench.synthetic.node_encoding import decode_edges, decode_features, encode_edges, encode_features
from dd_bench.synthetic.node_pictures import feature_pictures
from dd_bench.synthetic.permuted import permuted_labels

CONTEXT = -1
"""Label of a node whose class is not given. It takes part in propagation, but not in the loss."""


@dataclass(frozen=True, eq=False)
class NodeSet(SyntheticSet):
    """Nodes with features and labels, and edges among them.

    A set without edges is structure-free: networks are trained on it as MLPs, and tested with the real edges.

    Attributes:
        features: features in the space of the real ones, float32 `(n, d)`.
        labels: classes, int64 `(n,)`, with `CONTEXT` for nodes without a class, which must be the last ones; or
            probabilities, float32 `(n, k)`.
        edges: int64 `(2, e)`, each undirected edge in both directions; the file has only one direction.
        weights: positive weights of the edges, float32 `(e,)`; None: ones.
        shape: number of features of the real set.
        class_names: names in label order.
        columns: features that the set uses, ascending, int64 `(d,)`; None: all. Networks are also tested with these
            features only.
        source: for a coreset, the number of each node in the training graph.
        whole: whether this is the whole training graph. Its ipc is then not checked.
    """

    kind: ClassVar[str] = "nodes"
    modality: ClassVar[str] = "node"
    task: ClassVar[str] = "graph-ml"
    protocol: ClassVar[str] = "node-last"
    main_tensors: ClassVar[str] = "features, labels, edges"
    lr = None
    preprocess = Identity()

    features: Tensor
    labels: Tensor
    edges: Tensor
    weights: Tensor | None
    shape: NodeShape
    class_names: tuple[str, ...]
    columns: Tensor | None = None
    source: tuple[int, ...] | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError unless the tensors are consistent, all labels are in range and edges are undirected."""
        n, d = self.features.shape
        expected = self.shape.features if self.columns is None else len(self.columns)
        if d != expected:
            raise ValueError(f"features must have {expected} columns, got {d}")
        labelled = self.labels if self.labels.ndim == 2 else self.labels[self.labels != CONTEXT]
        check_labels(labelled, len(labelled), len(self.class_names))
        if len(self.labels) != n or not len(labelled):
            raise ValueError(
                f"each node must have a label or be context, and at least one must have a label, got {n} nodes, "
                f"{len(self.labels)} labels and {len(labelled)} classes"
            )
        if self.labels.ndim == 1 and bool((self.labels[: len(labelled)] == CONTEXT).any()):
            raise ValueError("nodes without a class must be the last ones")
        if self.columns is not None:
            check = torch.cat([self.columns.new_full((1,), -1), self.columns])
            if bool((check.diff() < 1).any()) or int(self.columns[-1]) >= self.shape.features:
                raise ValueError(f"columns must ascend within 0..{self.shape.features - 1}")
        if self.weights is not None and self.weights.numel():
            low, _ = check_finite("edge weights", self.weights)
            if low <= 0:
                raise ValueError(f"edge weights must be > 0, got {low:g}. Remove edges with weight 0")
        self._check_undirected()
        check_source(self.source, self.labels)
        if self.whole and (self.source is None or sorted(self.source) != list(range(n))):
            raise ValueError(
                f"the whole training graph (whole=true) must have the sources 0, 1, ..., {n - 1} in any order, got "
                f"{str(self.source)[:100]}"
            )

    def _check_undirected(self) -> None:
        coo = Adjacency(len(self.features), self.edges, self.weights).summed.to_sparse_coo()
        transposed = coo.t().coalesce()
        if not torch.equal(coo.indices(), transposed.indices()) or not torch.equal(
            coo.values(), transposed.values()
        ):
            raise ValueError("edges must be in both directions, with equal weights")

    @cached_property
    def graph(self) -> NodeGraph:
        """All nodes and edges."""
        return NodeGraph.of(self.features, self.edges, self.weights)

    @classmethod
    def coreset(
        cls,
        real: RealSet,
        index: Tensor,
        whole: bool = False,
        hops: int = 0,
        edges: bool = True,
        columns: Tensor | None = None,
    ) -> NodeSet:
        """Build a set from labelled nodes.

        Args:
            real: the real set.
            index: positions `(n,)` of the nodes in the training split.
            whole: return the whole training graph. Nodes that are not in `index` are context.
            hops: steps of propagation of the features over the training graph.
            edges: whether to include the edges among the nodes.
            columns: the features to store, ascending; None: all.
        """
        train = training_nodes(real)
        nodes = torch.arange(train.graph.adjacency.v) if whole else train.index[index].cpu()
        labels = torch.full((train.graph.adjacency.v,), CONTEXT)
        labels[train.index[index].cpu()] = train.labels[index].cpu()
        return cls.induced(real, nodes, labels[nodes], whole, hops, edges, columns)

    @classmethod
    def induced(
        cls,
        real: RealSet,
        nodes: Tensor,
        labels: Tensor,
        whole: bool = False,
        hops: int = 0,
        edges: bool = True,
        columns: Tensor | None = None,
    ) -> NodeSet:
        """Build a set from any nodes `(n,)` of the training graph, with labels `(n,)`. See `coreset` and `NodeSet`.

        Nodes without a class are moved to the end.
        """
        graph = training_nodes(real).graph.to(torch.device("cpu"))
        order = (labels == CONTEXT).int().argsort(stable=True)
        nodes, labels = nodes[order], labels[order]
        features = (graph.propagated(hops) if hops else graph.features)[nodes]
        return cls(
            features if columns is None else features[:, columns],
            labels,
            graph.adjacency.subgraph(nodes).edges if edges else torch.zeros(2, 0, dtype=torch.int64),
            None,
            NodeShape(graph.features.shape[1]),
            real.class_names,
            columns,
            tuple(nodes.tolist()),
            whole,
        )

    @classmethod
    def of(
        cls,
        real: RealSet,
        features: Tensor,
        labels: Tensor,
        edges: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> NodeSet:
        """Build a set from learned tensors on any device."""
        none = torch.zeros(2, 0, dtype=torch.int64)
        return cls(
            features.detach().cpu(),
            labels.detach().cpu(),
            none if edges is None else edges.cpu(),
            None if weights is None else weights.detach().cpu(),
            training_nodes(real).shape,  # type: ignore[arg-type]  # a NodeShape
            real.class_names,
        )

    @property
    def labelled(self) -> Tensor:
        """Numbers of the nodes that have a label, `(m,)`."""
        if self.labels.ndim == 2:
            return torch.arange(len(self.labels))
        return (self.labels != CONTEXT).nonzero().flatten()

    def materialise(self, device: torch.device) -> tuple[NodeGraph, Tensor]:
        """Return a view of the graph for which networks return the logits of the labelled nodes, and their labels."""
        index = self.labelled
        return self.graph.at(index).to(device), self.labels[index].to(device)

    def real_graph(self, graph: NodeGraph) -> NodeGraph:
        """Return a real graph with the features that networks on this set use."""
        return graph if self.columns is None else graph.with_columns(self.columns.to(graph.device))

    def architecture(self, architecture: Architecture) -> Architecture:
        """Return an architecture for the number of features that the set uses."""
        return replace(architecture, shape=NodeShape(self.features.shape[1]))  # type: ignore[arg-type]

    def permute_labels(self, generator: torch.Generator) -> NodeSet:
        """Return the set with permuted labels, see `permuted_labels`. Rows of soft labels are shuffled."""
        labels = self.labels.clone()
        index = self.labelled
        if labels.ndim == 2:
            return replace(self, labels=labels[torch.randperm(len(labels), generator=generator)], source=None)
        labels[index] = permuted_labels(labels[index], len(self.class_names), generator)
        return replace(self, labels=labels)

    def without_edges(self) -> NodeSet:
        """Return the nodes without edges."""
        return replace(self, edges=self.edges.new_zeros(2, 0), weights=None, whole=False)

    def permute_edges(self, generator: torch.Generator) -> NodeSet:
        """Return the set with the same edges among randomly renumbered nodes; features and labels stay."""
        order = torch.randperm(len(self.labels), generator=generator)
        return replace(self, edges=order[self.edges], whole=False)

    def threshold_edges(self, minimum: float) -> NodeSet:
        """Return the set with the edges whose weight is above `minimum`, with weights of one."""
        keep = torch.ones(self.edges.shape[1], dtype=torch.bool)
        if self.weights is not None:
            keep = self.weights > minimum
        return replace(self, edges=self.edges[:, keep], weights=None, whole=False)

    def caveats(self, architecture: Architecture) -> Sequence[str]:
        """Return remarks on parts of the set that this architecture does not use."""
        if self.weights is not None and not getattr(architecture.make, "uses_edge_weights", True):
            return [
                f"{architecture.title} ignores the weights of the {self.edges.shape[1] // 2} edges of the set"
            ]
        return []

    def tensors(self) -> dict[str, Tensor]:
        """See `SyntheticSet`; features and edges have the smaller of two encodings, see `node_encoding`."""
        labels = self.labels[self.labelled]
        stored = {
            **encode_features(self.features),
            **encode_edges(len(self.labels), self.edges, self.weights),
            "labels": to_smallest_dtype(labels) if labels.ndim == 1 else labels.contiguous(),
        }
        return stored if self.columns is None else {**stored, "columns": to_smallest_dtype(self.columns)}

    def describe_tensors(self) -> str:
        """See `SyntheticSet`."""
        return """`features` holds the features of each node. If most are 0, the file has instead `feature_counts`,
the number of other features of each node, `feature_columns`, their columns, and `feature_values`, their values, or
`node_values`, one value for each node. `edges` holds each undirected edge once, and `edge_weights` its weight; or
`adjacency` holds the weights of all pairs (0, 1), (0, 2), and so on. `labels` holds the classes of the first nodes; the
others have no class. `columns` holds the features of the dataset that are used."""

    def config(self) -> dict[str, Any]:
        """See `SyntheticSet`."""
        return {
            "shape": list(self.shape),
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
        require_tensors(tensors, "labels")
        (features,) = config["shape"]
        if type(features) is not int or features < 1:
            raise ValueError(f"shape must be the number of features, got {config['shape']}")
        columns = tensors["columns"].long() if "columns" in tensors else None
        stored = tensors["labels"]
        n = len(tensors.get("features", tensors.get("feature_counts", ())))
        if len(stored) > n:
            raise ValueError(f"labels must have at most one value per node, {n}, got {len(stored)}")
        labels = stored
        if stored.ndim == 1:
            labels = torch.cat([stored.long(), torch.full((n - len(stored),), CONTEXT)])
        edges, weights = decode_edges(tensors, n)
        source = None if config["source"] is None else tuple(config["source"])
        return cls(
            decode_features(tensors, n, features if columns is None else len(columns)),
            labels,
            edges,
            weights,
            NodeShape(features),
            class_names,
            columns,
            source,
            bool(config.get("whole", False)),
        )

    def stored_samples(self) -> Tensor:
        """See `SyntheticSet`. Context nodes are not counted; they are part of the stored bytes."""
        k = len(self.class_names)
        if self.labels.ndim == 2:
            return torch.full((k,), len(self.labels) / max(k, 1), dtype=torch.float64)
        return torch.bincount(self.labels[self.labelled], minlength=k).double()

    def paper_bytes(self) -> dict[str, int]:
        """Return the sizes in bytes by the rules of two papers.

        - `GCond bytes`: `4 (n^2 + n d)`, float32 features and a dense adjacency (4 n d without edges).
        - `Bonsai bytes`: those of `bonsai_feature_bytes`, and two for each end of an undirected edge.
        """
        n, d = self.features.shape
        edges = self.edges.shape[1] // 2
        return {
            "GCond bytes": 4 * n * (d + (n if edges else 0)),
            "Bonsai bytes": int(self.bonsai_feature_bytes(self.features).sum()) + 4 * edges,
        }

    @staticmethod
    def bonsai_feature_bytes(features: Tensor) -> Tensor:
        """Return the bytes of the features of each node by the rule of Bonsai, int64 `(n,)`.

        A non-zero feature has two bytes if all features `(n, d)` are binary, i.e. if each node has only one positive
        value, and four bytes otherwise.
        """
        high = features.amax(1, keepdim=True)
        binary = bool((features >= 0).all()) and bool(((features == 0) | (features == high)).all())
        return torch.count_nonzero(features, 1) * (2 if binary else 4)

    def size_metrics(self) -> dict[str, int]:
        """See `SyntheticSet`: numbers of nodes, labelled nodes and undirected edges, and `paper_bytes`."""
        return {
            "nodes": len(self.labels),
            "labelled nodes": len(self.labelled),
            "edges": self.edges.shape[1] // 2,
            **self.paper_bytes(),
        }

    def pictures(self) -> tuple[Tensor, Tensor]:
        """See `SyntheticSet`. The first ten nodes of each class, see `feature_pictures`."""
        index = self.labelled
        classes = self.labels[index] if self.labels.ndim == 1 else self.labels[index].argmax(1)
        first = torch.cat([(classes == c).nonzero()[:10, 0] for c in classes.unique()])
        return feature_pictures(self.features[index], classes, first), classes[first]
