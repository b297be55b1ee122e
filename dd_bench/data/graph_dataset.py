"""Real datasets of graphs as a `RealSet`, whose `inputs` and `batches` return `Graphs` instead of images."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet, Split, content_digest
from dd_bench.data.graphs import Graphs, GraphShape
from dd_bench.data.preprocess import Identity
from dd_bench.runtime.seeding import published_order


class GraphSplit(Split):
    """Labelled graphs on the device."""

    def __init__(self, graphs: Graphs, labels: Tensor, num_classes: int, spec: GraphShape):
        """Create a split from graphs and their class labels, int64 `(n,)`."""
        self.graphs, self.labels, self.num_classes, self.spec = graphs, labels, num_classes, spec
        self.shape = spec  # type: ignore[assignment]  # (c, h, w) for images; a network can be built from both

    def inputs(self, index: Tensor) -> Graphs:  # type: ignore[override]
        """See `Split`. Waits for the device once, see `Graphs`."""
        return self.graphs[index]

    def pixels(self, index: Tensor) -> Tensor:
        """Raise RuntimeError. A method that needs pixels must reject graph datasets in `Method.check_dataset`."""
        raise RuntimeError(
            "Split.pixels requires images, got graphs. Use Split.inputs for graphs, or reject graph datasets in "
            "Method.check_dataset"
        )

    def batches(self, size: int) -> Iterator[tuple[Graphs, Tensor]]:  # type: ignore[override]
        """See `Split`."""
        for index in torch.arange(len(self), device=self.labels.device).split(size):
            yield self.graphs[index], self.labels[index]

    def to(self, device: torch.device) -> GraphSplit:
        """See `Split`."""
        return GraphSplit(self.graphs.to(device), self.labels.to(device), self.num_classes, self.spec)

    def subset(self, index: Tensor) -> GraphSplit:
        """See `Split`."""
        return GraphSplit(self.graphs[index], self.labels[index], self.num_classes, self.spec)


def training_graphs(real: RealSet) -> GraphSplit:
    """Return the training graphs of a real set.

    Raises:
        TypeError: the set contains images.
    """
    if not isinstance(real.train, GraphSplit):
        raise TypeError(f"{real.name} must contain graphs, got {real.modality}s")
    return real.train


def graph_set(
    name: str,
    graphs: Graphs,
    labels: Tensor,
    split: tuple[Tensor, Tensor, Tensor],
    *,
    shape: GraphShape,
    class_names: tuple[str, ...],
    licence: str,
    citation: str,
    device: torch.device,
    other_split: str = "another dataset.seed, or larger dataset.test and dataset.val",
) -> RealSet:
    """Build a `RealSet` from graphs and the indices of the training, validation and test graphs.

    `other_split` is the part of an error message that describes how to get another split.

    Raises:
        ValueError: a label is out of range; a split is empty, overlaps another split or has only one class; or a class
            has no training graph.
    """
    graphs.check(shape)
    if len(labels) != len(graphs):
        raise ValueError(
            f"{name}: each graph must have one label, got {len(graphs)} graphs and {len(labels)} labels"
        )
    indices = torch.cat(split)
    if not 0 <= int(indices.min()) <= int(indices.max()) < len(graphs):
        raise ValueError(
            f"{name}: the indices of the split must be in 0..{len(graphs) - 1}, "
            f"got {int(indices.min())}..{int(indices.max())}"
        )
    if len(indices.unique()) != len(indices):
        repeated = int(indices.bincount().argmax())
        raise ValueError(
            f"{name}: each graph must be in at most one of train, val and test, got graph {repeated} twice"
        )
    k = len(class_names)
    if not 0 <= int(labels.min()) <= int(labels.max()) < k:
        raise ValueError(
            f"{name}: labels must be in 0..{k - 1}, got {int(labels.min())}..{int(labels.max())}"
        )
    splits = []
    for part, index in zip(("train", "val", "test"), split, strict=True):
        if not len(index):
            raise ValueError(f"{name}: the {part} split must contain at least one graph, got none")
        if len(labels[index].unique()) < 2:
            raise ValueError(
                f"{name}: the {part} split must contain graphs of at least two classes, got one class. "
                f"Use {other_split}"
            )
        splits.append(GraphSplit(graphs[index].to(device), labels[index].to(device), k, shape))
    train, val, test = splits
    missing = (train.counts == 0).nonzero().flatten().tolist()
    if missing:
        raise ValueError(
            f"{name}: each class must have a training graph, got none of class {class_names[missing[0]]!r}"
        )
    digest = content_digest(
        [graphs.nodes, graphs.edges, graphs.edge_labels, graphs.ptr, labels, *split],
        (*class_names, repr(tuple(shape))),
    )
    return RealSet(name, train, class_names, Identity(), False, digest, licence, citation, val, test, "graph")


def random_split(n: int, seed: int, test: float, val: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the train, validation and test indices of a random split.

    The first ceil(test * n) graphs of a random permutation are the test split, the next ceil(val * n) graphs the
    validation split, and the rest the training split. Seed 0 with `test=0.1` and `val=0.1` gives the split of Mirage,
    DosCond and GC-Bench (`torch.manual_seed(0)`, then PyG's shuffle).

    Raises:
        ValueError: `test` or `val` is not in (0, 1), or their sum is not below 1.
    """
    if not (0 < test < 1 and 0 < val < 1 and test + val < 1):
        raise ValueError(
            "dataset.test and dataset.val must be in (0, 1) with a sum below 1, got "
            f"{test} and {val}. Example: dataset.test=0.1 dataset.val=0.1"
        )
    order = published_order(n, seed)
    num_test, num_val = (math.ceil(round(n * share, 6)) for share in (test, val))
    return order[num_test + num_val :], order[num_test : num_test + num_val], order[:num_test]
