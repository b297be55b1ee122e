"""Stochastic block model with Gaussian features: generated graphs for node classification. Requires no download."""

from __future__ import annotations

from collections.abc import Mapping
from math import log1p

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

    In the inductive setting, the splits are graphs of their own, drawn independently with the same class means and the
    same expected degrees. In each graph, node i has class i mod `classes`. In one large graph, the training nodes would
    have few edges to one another.

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
        setting: `transductive`: one graph; `inductive`: one graph for each split, with as many nodes as it has in the
            transductive setting.
        seed: seed of the graphs, the features and the split.
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
    means = torch.randn(classes, features, generator=g)
    if setting == "inductive":
        sizes = {"train": classes * train, "val": val, "test": nodes - classes * train - val}
        _check_degrees(sizes, classes, degree_in, degree_out)
        graph, labels, split = _independent_graphs(sizes, means, noise, degree_in, degree_out, seed)
    else:
        labels = torch.arange(nodes) % classes
        x = means[labels] + noise * torch.randn(nodes, features, generator=g)
        split = _random_split(labels, train, val, g)
        draws = round(nodes * degree_in / 2), round(nodes * degree_out / 2)
        graph = NodeGraph.of(x, _edges(labels, classes, *draws, g))
    return node_set(
        "sbm",
        graph,
        labels,
        split,
        setting=setting,
        class_names=tuple(str(c) for c in range(classes)),
        licence="generated",
        citation="Holland, Laskey and Leinhardt, Stochastic Blockmodels: First Steps, Social Networks, 1983",
        device=device,
    )


def _random_split(labels: Tensor, train: int, val: int, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return `train` random nodes of each class, `val` of the other nodes, and the remaining ones."""
    order = torch.randperm(len(labels), generator=g)
    rank = torch.zeros(len(labels), dtype=torch.int64)
    for c in range(int(labels.max()) + 1):  # number of each node within its class, in the random order
        members = order[labels[order] == c]
        rank[members] = torch.arange(len(members))
    is_train = rank < train
    rest = order[~is_train[order]]
    return is_train.nonzero().flatten(), rest[:val].sort().values, rest[val:].sort().values


def _check_degrees(sizes: Mapping[str, int], k: int, degree_in: float, degree_out: float) -> None:
    """Raise ValueError unless the graph of each split has enough pairs of nodes for the expected degrees."""
    for split, n in sizes.items():
        same, other = n // k - 1, n - -(-n // k)
        if (degree_in and degree_in >= same) or (degree_out and degree_out >= other):
            raise ValueError(
                f"dataset.degree_in must be < {same} and dataset.degree_out < {other} for the {n} {split} nodes of {k} "
                f"classes in the inductive setting, got {degree_in} and {degree_out}. Use a larger "
                f"dataset.{'nodes' if split == 'test' else split}, or dataset.setting=transductive"
            )


def _independent_graphs(
    sizes: Mapping[str, int], means: Tensor, noise: float, degree_in: float, degree_out: float, seed: int
) -> tuple[NodeGraph, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return one graph whose three parts have no edge between them, its labels, and the nodes of each part."""
    k, d = means.shape
    features, labels, edges, split, first = [], [], [], [], 0
    for name, n in sizes.items():
        g, own = generator("cpu", seed, "sbm", name), torch.arange(n) % k
        same = float((torch.bincount(own, minlength=k).double().square().sum() - n) / 2)  # pairs of one class
        draws = (
            _draws(n * degree_in / 2, same, 1 - k / n),
            _draws(n * degree_out / 2, n * (n - 1) / 2 - same, 1.0),
        )
        features.append(means[own] + noise * torch.randn(n, d, generator=g))
        edges.append(first + _edges(own, k, *draws, g))
        labels.append(own)
        split.append(first + torch.arange(n))
        first += n
    train, val, test = split
    return NodeGraph.of(torch.cat(features), torch.cat(edges, 1)), torch.cat(labels), (train, val, test)


def _draws(edges: float, pairs: float, hit: float) -> int:
    """Return the number of draws in which `edges` different pairs are expected.

    Args:
        edges: expected number of edges, less than `pairs`.
        pairs: number of pairs of nodes, which are drawn with equal probability and with replacement.
        hit: share of the draws that are pairs; the others are a node and itself.
    """
    return round(log1p(-edges / pairs) / log1p(-hit / pairs)) if edges else 0


def _edges(labels: Tensor, k: int, within: int, between: int, g: torch.Generator) -> Tensor:
    """Draw pairs of nodes within and between the classes; a pair that is drawn twice becomes one edge.

    Args:
        labels: the class of node i, i mod `k`.
        k: number of classes.
        within: number of draws of two nodes of one class, which may be the same node.
        between: number of draws of two nodes of different classes.
        g: generator of random numbers.
    """
    v = len(labels)
    drawn = []
    for count, inside in ((within, True), (between, False)):
        sender = torch.randint(v, (count,), generator=g)
        shift = (
            torch.zeros(count, dtype=torch.int64) if inside else torch.randint(1, k, (count,), generator=g)
        )
        c = (labels[sender] + shift) % k
        sizes = torch.bincount(labels, minlength=k)[c]
        position = (torch.rand(count, generator=g, dtype=torch.float64) * sizes).long()
        drawn.append(torch.stack([sender, c + k * position]))  # node number `position` of class c
    return undirected(torch.cat(drawn, 1))[0]
