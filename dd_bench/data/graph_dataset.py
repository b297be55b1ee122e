"""Real graphs behind the contract of a real set: `inputs` and `batches` give `Graphs` instead of images."""

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
    """Labelled graphs, on the device."""

    def __init__(self, graphs: Graphs, labels: Tensor, num_classes: int, spec: GraphShape):
        """Takes graphs and their classes, int64 `(n,)`."""
        self.graphs, self.labels, self.num_classes, self.spec = graphs, labels, num_classes, spec
        self.shape = spec  # type: ignore[assignment]  # of an image (c, h, w); a network is built from either

    def inputs(self, index: Tensor) -> Graphs:  # type: ignore[override]
        """See `Split`."""
        return self.graphs[index]

    def pixels(self, index: Tensor) -> Tensor:
        """Raises RuntimeError: a method of images asks for them, and `Method.check_dataset` has not kept it away."""
        raise RuntimeError("graphs have no pixels")

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
    """Returns the training graphs of a real set.

    Raises:
        TypeError: it holds images.
    """
    if not isinstance(real.train, GraphSplit):
        raise TypeError(f"{real.name} holds {real.modality}s, not graphs")
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
    """Builds a `RealSet` of graphs and the indices of its training, validation and test graphs.

    `other_split` says how its user gets another split, for the errors.

    Raises:
        ValueError: a label names nothing, a split is empty or overlaps another, or a class has no training graph.
    """
    graphs.check(shape)
    if len(labels) != len(graphs):
        raise ValueError(f"{name}: {len(graphs)} graphs, but {len(labels)} classes")
    together = torch.cat(split)
    if not 0 <= int(together.min()) <= int(together.max()) < len(graphs):
        raise ValueError(f"{name}: the split names graphs outside 0..{len(graphs) - 1}")
    if len(together.unique()) != len(together):
        raise ValueError(f"{name}: a graph is in two parts of the split")
    k = len(class_names)
    if not 0 <= int(labels.min()) <= int(labels.max()) < k:
        raise ValueError(
            f"{name}: classes {int(labels.min())} to {int(labels.max())}, there are {k}: 0 to {k - 1}"
        )
    parts = []
    for part, index in zip(("train", "val", "test"), split, strict=True):
        if not len(index):
            raise ValueError(f"{name}: its {part} split is empty")
        if len(labels[index].unique()) < 2:
            raise ValueError(
                f"{name}: its {part} split has one class alone: no area under a curve. Use {other_split}"
            )
        parts.append(GraphSplit(graphs[index].to(device), labels[index].to(device), k, shape))
    missing = (parts[0].counts == 0).nonzero().flatten().tolist()
    if missing:
        raise ValueError(f"{name}: no training graph of class {class_names[missing[0]]!r}")
    digest = content_digest(
        [graphs.nodes, graphs.edges, graphs.edge_labels, graphs.ptr, labels, *split],
        (*class_names, repr(tuple(shape))),
    )
    return RealSet(
        name, parts[0], class_names, Identity(), False, digest, licence, citation, parts[1], parts[2], "graph"
    )


def random_split(n: int, seed: int, test: float, val: float) -> tuple[Tensor, Tensor, Tensor]:
    """Returns train, validation and test indices of a shuffle: the first ceil(test n), the next ceil(val n), the rest.

    Seed 0 with tenths is the split of Mirage, DosCond and GC-Bench (`torch.manual_seed(0)`, then PyG's shuffle).

    Raises:
        ValueError: a share is not in (0, 1), or nothing is left to train on.
    """
    if not (0 < test < 1 and 0 < val < 1 and test + val < 1):
        raise ValueError(
            f"dataset.test={test}, dataset.val={val}: wanted shares in (0, 1) with a sum below 1"
        )
    order = published_order(n, seed)
    first, second = (math.ceil(round(n * share, 6)) for share in (test, val))
    return order[first + second :], order[first : first + second], order[:first]
