"""Real datasets of node classification as a `RealSet`: one graph, whose labelled nodes are the samples.

In the transductive setting, all splits are nodes of one graph: a method has the features and edges of all nodes, and
the labels of the training nodes only. In the inductive setting, each split is a graph of its own, induced by its nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet, Split, content_digest
from dd_bench.data.nodes import NodeGraph, NodeShape
from dd_bench.data.preprocess import Identity

Setting = Literal["transductive", "inductive"]


class NodeSplit(Split):
    """The labelled nodes of a split. Labels of other nodes of the graph are not part of it.

    Attributes:
        graph: the graph that can be used together with these labels.
        index: number of each labelled node in the graph, int64 `(n,)`.
        setting: `transductive` or `inductive`.
    """

    def __init__(self, graph: NodeGraph, index: Tensor, labels: Tensor, num_classes: int, setting: Setting):
        """Create a split of the nodes `index` with the classes `labels`, both int64 `(n,)`."""
        self.graph, self.index, self.labels, self.num_classes = graph, index, labels, num_classes
        self.setting = setting
        self.shape = NodeShape(graph.features.shape[1])  # type: ignore[assignment]  # (c, h, w) for images

    def inputs(self, index: Tensor) -> NodeGraph:  # type: ignore[override]
        """Return a view of the graph for which networks return the logits of the nodes at `index`."""
        return self.graph.at(self.index[index])

    def pixels(self, index: Tensor) -> Tensor:
        """Raise RuntimeError. A method that needs pixels must reject nodes in `Method.check_dataset`."""
        raise RuntimeError(
            "Split.pixels requires images, got nodes. Use NodeSplit.graph and NodeSplit.index for nodes, or reject "
            "node datasets in Method.check_dataset"
        )

    def batches(self, size: int) -> Iterator[tuple[NodeGraph, Tensor]]:  # type: ignore[override]
        """Yield the whole split as one batch, for any `size`, because one forward pass computes all nodes."""
        yield self.graph.at(self.index), self.labels

    def to(self, device: torch.device) -> NodeSplit:
        """See `Split`."""
        graph, index, labels = self.graph.to(device), self.index.to(device), self.labels.to(device)
        return NodeSplit(graph, index, labels, self.num_classes, self.setting)

    def subset(self, index: Tensor) -> NodeSplit:
        """Return the same graph with the labels of the nodes at `index` only."""
        return NodeSplit(self.graph, self.index[index], self.labels[index], self.num_classes, self.setting)

    def features(self, hops: int = 0) -> Tensor:
        """Return the features of the labelled nodes after `hops` steps of propagation, float32 `(n, d)`."""
        return self.graph.propagated(hops)[self.index]


def training_nodes(real: RealSet) -> NodeSplit:
    """Return the training nodes of a real set.

    Raises:
        TypeError: the set contains images or graphs.
    """
    if not isinstance(real.train, NodeSplit):
        raise TypeError(f"{real.name} must contain nodes of a graph, got {real.modality}s")
    return real.train


def node_set(
    name: str,
    graph: NodeGraph,
    labels: Tensor,
    split: tuple[Tensor, Tensor, Tensor],
    *,
    setting: str,
    class_names: tuple[str, ...],
    licence: str,
    citation: str,
    device: torch.device,
) -> RealSet:
    """Build a `RealSet` from a graph and the nodes of its training, validation and test split.

    Args:
        name: name of the dataset; `_inductive` is appended in the inductive setting.
        graph: the graph of all nodes.
        labels: class of each node, int64 `(v,)`; -1: not known.
        split: numbers of the training, validation and test nodes.
        setting: `transductive`, or `inductive`: each split is the graph that its nodes induce.
        class_names: see `RealSet`.
        licence: see `RealSet`.
        citation: see `RealSet`.
        device: where the graph is stored.

    Raises:
        ValueError: a node of a split has no label, is in two splits or does not exist; a label is out of range; a class
            has no training node; or `setting` is unknown.
    """
    if setting not in get_args(Setting):
        raise ValueError(
            f"dataset.setting must be transductive or inductive, got {setting!r}. Example: dataset.setting=inductive"
        )
    v, k = graph.adjacency.v, len(class_names)
    if len(labels) != v:
        raise ValueError(f"{name}: each node must have one label, got {v} nodes and {len(labels)} labels")
    indices = torch.cat(split)
    if not all(len(part) for part in split) or not 0 <= int(indices.min()) <= int(indices.max()) < v:
        raise ValueError(
            f"{name}: train, val and test must each have nodes in 0..{v - 1}, got {[len(part) for part in split]} "
            f"nodes in {int(indices.min())}..{int(indices.max())}"
        )
    if len(indices.unique()) != len(indices):
        repeated = int(indices.bincount().argmax())
        raise ValueError(f"{name}: each node must be in at most one split, got node {repeated} twice")
    low, high = (int(end) for end in labels[indices].aminmax())
    if low < 0 or high >= k:
        raise ValueError(f"{name}: labels of train, val and test must be in 0..{k - 1}, got {low}..{high}")
    missing = (torch.bincount(labels[split[0]], minlength=k) == 0).nonzero().flatten().tolist()
    if missing:
        raise ValueError(
            f"{name}: each class must have a training node, got none of class {class_names[missing[0]]!r}"
        )
    adjacency = graph.adjacency
    digest = content_digest(
        [graph.features, adjacency.edges, labels, *split],
        (*class_names, setting),
    )
    whole = graph.to(device)
    splits = []
    for part in (index.to(device) for index in split):
        own = part if setting == "transductive" else torch.arange(len(part), device=device)
        visible = whole if setting == "transductive" else whole.subgraph(part)
        splits.append(NodeSplit(visible, own, labels.to(device)[part], k, setting))  # type: ignore[arg-type]
    train, val, test = splits
    title = name if setting == "transductive" else f"{name}_inductive"
    return RealSet(title, train, class_names, Identity(), False, digest, licence, citation, val, test, "node")


def row_normalised(features: Tensor) -> Tensor:
    """Return features `(v, d)` whose rows sum to one, as in Planetoid's papers. Rows of zeros stay zero."""
    return features / features.sum(1, keepdim=True).clamp_min(1e-12)


def standardised(features: Tensor, train: Tensor) -> Tensor:
    """Return features `(v, d)` whose columns have mean 0 and variance 1 over the training nodes `train`."""
    x = features[train].double()
    mean, std = x.mean(0), x.std(0, correction=0)
    return ((features - mean) / torch.where(std > 0, std, 1.0)).float()
