"""The features that a decision tree uses to classify the training nodes, the only ones that a set can store."""

from __future__ import annotations

import torch
from torch import Tensor

from dd_bench.api import NodeGraph


def smoothed_features(graph: NodeGraph) -> Tensor:
    """Return D^-1 (A + I) D^-1 X, with the degrees D of A + I, float32 `(v, d)`."""
    inverse = (1 / (graph.adjacency.sums + 1))[:, None]
    scaled = inverse * graph.features
    return inverse * (graph.adjacency.summed @ scaled + scaled)


def tree_columns(x: Tensor, labels: Tensor) -> Tensor:
    """Return the columns that a decision tree of depth 50 uses to classify the rows of `x (n, d)`, ascending."""
    from sklearn.tree import DecisionTreeClassifier  # slow to import

    tree = DecisionTreeClassifier(max_depth=50, random_state=0).fit(x.numpy(), labels.numpy())
    used = torch.from_numpy(tree.tree_.feature).long().unique()
    used = used[used >= 0]  # negative: leaves
    return used if len(used) else torch.arange(x.shape[1])
