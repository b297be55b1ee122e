"""Metrics of graph classification, and two baselines that ignore the structure of the graphs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dd_bench.data.graph_dataset import GraphSplit

GraphMetric = Literal["auc", "accuracy", "balanced_accuracy"]
GRAPH_METRICS: tuple[GraphMetric, ...] = ("auc", "accuracy", "balanced_accuracy")


def graph_score(metric: GraphMetric, logits: Tensor, labels: Tensor) -> float:
    """Return a metric in [0, 1] of logits `(n, k)`.

    `auc` is the area under the ROC curve, 0.5 for uninformative logits. With more than two classes, it is the mean of
    the one-vs-rest areas of all classes that have positive and negative samples.
    """
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score  # slow to import

    y, k = labels.cpu(), logits.shape[1]
    if metric == "accuracy":
        return float((logits.argmax(1).cpu() == y).float().mean())
    if metric == "balanced_accuracy":
        return float(balanced_accuracy_score(y.numpy(), logits.argmax(1).cpu().numpy()))
    p = logits.double().softmax(1).cpu() if k > 2 else (logits[:, 1] - logits[:, 0]).double().cpu()[:, None]
    areas = []
    for column, c in enumerate(range(k) if k > 2 else [1]):
        positive = y == c
        if 0 < int(positive.sum()) < len(y):
            areas.append(float(roc_auc_score(positive.numpy(), p[:, column].numpy())))
    return sum(areas) / len(areas)


def size_only(metric: GraphMetric, train: GraphSplit, test: GraphSplit) -> float:
    """Return the test score of logistic regression with the number of nodes as the only feature."""
    from sklearn.linear_model import LogisticRegression

    sizes = [split.graphs.num_nodes[:, None].double().cpu() for split in (train, test)]
    mean, std = sizes[0].mean(), sizes[0].std().clamp_min(1e-9)
    x, x_test = (((size - mean) / std).numpy() for size in sizes)
    logits = LogisticRegression(max_iter=1000).fit(x, train.labels.cpu().numpy()).decision_function(x_test)
    z = torch.from_numpy(logits)
    z = torch.stack([torch.zeros_like(z), z], 1) if z.ndim == 1 else z
    return graph_score(metric, z, test.labels)


def majority(metric: GraphMetric, train: GraphSplit, test: GraphSplit) -> float:
    """Return the test score of always predicting the most frequent training class."""
    z = torch.zeros(len(test), train.num_classes)
    z[:, int(train.counts.argmax())] = 1.0
    return graph_score(metric, z, test.labels)
