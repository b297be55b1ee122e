"""Stochastic block model with Gaussian features: generated graphs for node classification. Requires no download."""

from __future__ import annotations

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.node_dataset import node_set
from dd_bench.data.nodes import NodeGraph, undirected
from dd_bench.runtime.seeding import generator


def sbm(
    *,
    nodes: int,
    classes: int,
    features: int,
    degree_in: float,
    degree_out: float,
    noise: float,
    train: int,
    val: int,
    setting: str,
    seed: int,
    device: torch.device,
) -> RealSet:
    """Return a graph of `nodes` nodes; node i has class i mod `classes`.

    Each node has `degree_in` neighbours of its own class and `degree_out` of the other classes in expectation. The
    features of a node are the mean of its class, drawn from N(0, I), plus `noise` times N(0, I). The nodes of the three
    splits are drawn at random. Edges are drawn in time linear in their number.

    Args:
        nodes: number v of nodes.
        classes: number of classes.
        features: number of features d.
        degree_in: expected number of neighbours of the same class.
        degree_out: expected number of neighbours of other classes. With `degree_out = (classes - 1) * degree_in`,
            edges carry no information on the classes.
        noise: standard deviation of the features within a class; large values remove their information.
        train: number of training nodes of each class.
        val: number of validation nodes; the remaining nodes are for testing.
        setting: see `node_set`.
        seed: seed of the graph, the features and the split.
        device: where the graph is stored.

    Raises:
        ValueError: a value is out of range.
    """
    if classes < 2 or features < 1 or noise < 0 or degree_in < 0 or degree_out < 0 or train < 1 or val < 1:
        raise ValueError(
            "dataset.classes must be >= 2, dataset.features, train and val >= 1, and noise and degrees >= 0, got "
            f"{classes}, {features}, {train}, {val}, {noise}, {degree_in} and {degree_out}. "
            "Example: dataset.classes=5 dataset.features=32 dataset.noise=3"
        )
    if nodes < classes * (train + 1) + val:
        raise ValueError(
            f"dataset.nodes must be >= {classes * (train + 1) + val} for {train} training nodes of each of {classes} "
            f"classes, {val} validation nodes and {classes} test nodes, got {nodes}. Example: dataset.nodes=2000"
        )
    g = generator("cpu", seed, "sbm")
    labels = torch.arange(nodes) % classes
    means = torch.randn(classes, features, generator=g)
    x = means[labels] + noise * torch.randn(nodes, features, generator=g)
    order = torch.randperm(nodes, generator=g)
    rank = torch.zeros(nodes, dtype=torch.int64)
    for c in range(classes):  # number of each node within its class, in the random order
        members = order[labels[order] == c]
        rank[members] = torch.arange(len(members))
    is_train = rank < train
    rest = order[~is_train[order]]
    split = (is_train.nonzero().flatten(), rest[:val].sort().values, rest[val:].sort().values)
    return node_set(
        "sbm",
        NodeGraph.of(x, _edges(labels, classes, degree_in, degree_out, g)),
        labels,
        split,
        setting=setting,
        class_names=tuple(str(c) for c in range(classes)),
        licence="generated",
        citation="Holland, Laskey and Leinhardt, Stochastic Blockmodels: First Steps, Social Networks, 1983",
        device=device,
    )


def _edges(labels: Tensor, k: int, degree_in: float, degree_out: float, g: torch.Generator) -> Tensor:
    """Draw edges within and between the classes; a pair that is drawn twice becomes one edge."""
    v = len(labels)
    drawn = []
    for degree, inside in ((degree_in, True), (degree_out, False)):
        count = round(v * degree / 2)
        sender = torch.randint(v, (count,), generator=g)
        shift = (
            torch.zeros(count, dtype=torch.int64) if inside else torch.randint(1, k, (count,), generator=g)
        )
        c = (labels[sender] + shift) % k
        sizes = torch.bincount(labels, minlength=k)[c]
        position = (torch.rand(count, generator=g, dtype=torch.float64) * sizes).long()
        drawn.append(torch.stack([sender, c + k * position]))  # node number `position` of class c
    return undirected(torch.cat(drawn, 1))[0]
