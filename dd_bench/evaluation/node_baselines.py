"""Scores of node classification without training on a synthetic set: the largest class, and label propagation."""

from __future__ import annotations

import torch
from torch import Tensor

from dd_bench.data.node_dataset import NodeSplit
from dd_bench.data.pyg import import_pyg

PROPAGATIONS, ALPHA = 50, 0.9  # values of PyG's example of label propagation


def largest_class(train: NodeSplit, test: NodeSplit) -> float:
    """Return the test accuracy of always predicting the most frequent class of the training nodes."""
    return float((test.labels == int(train.counts.argmax())).float().mean())


def label_propagation(
    train: NodeSplit, test: NodeSplit, counts: Tensor, generator: torch.Generator
) -> float | None:
    """Return the test accuracy of label propagation from `counts[c]` random training nodes of each class c.

    Features are not used. Returns None in the inductive setting, where the graph of the test nodes has no labels.
    """
    if train.graph.adjacency is not test.graph.adjacency:
        return None
    device, k = train.labels.device, train.num_classes
    chosen = []
    for c in range(k):
        members = train.of_class(c)
        order = torch.randperm(len(members), generator=generator).to(device)
        chosen.append(members[order[: int(counts[c])]])
    seeds = torch.cat(chosen)
    y = torch.zeros(train.graph.adjacency.v, k, device=device)
    y[train.index[seeds]] = torch.nn.functional.one_hot(train.labels[seeds], k).float()
    propagate = import_pyg("nn").LabelPropagation(PROPAGATIONS, ALPHA)
    out: Tensor = propagate(y, train.graph.adjacency.edges)
    return float((out[test.index].argmax(1) == test.labels).float().mean())
