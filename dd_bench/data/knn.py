"""The nearest-neighbour graph of the digits of scikit-learn, for node classification. Requires no download."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.digits import stored
from dd_bench.data.node_dataset import node_set
from dd_bench.data.nodes import NodeGraph, undirected
from dd_bench.runtime.seeding import generator


def knn(*, neighbours: int, train: int, val: int, setting: str, seed: int, device: torch.device) -> RealSet:
    """Return the 1,797 digits as nodes. Edges connect each digit to its nearest ones by L2 distance of the pixels.

    Features are the 64 pixels, divided by 16. The edges are a function of the features and add no information. They
    only allow networks to average over similar digits. In the inductive setting, the nearest digits are those of the
    same split.

    Args:
        neighbours: number of nearest neighbours of each digit, >= 1, before edges are made undirected.
        train: number of training digits of each class.
        val: number of validation digits; the remaining digits are for testing.
        setting: see `node_set`.
        seed: seed of the split.
        device: where the graph is stored.

    Raises:
        ValueError: a value is out of range.
    """
    data, target = stored()
    n = len(data)
    if not (1 <= neighbours < n and 1 <= train <= 100 and 1 <= val <= 500):
        raise ValueError(
            f"dataset.neighbours must be in 1..{n - 1}, dataset.train in 1..100 and dataset.val in 1..500, got "
            f"{neighbours}, {train} and {val}. Example: dataset.neighbours=8 dataset.train=20 dataset.val=200"
        )
    labels = torch.tensor(target)
    order = torch.randperm(n, generator=generator("cpu", seed, "split"))
    chosen = torch.cat([order[labels[order] == c][:train] for c in range(10)])
    rest = order[~torch.isin(order, chosen)]
    split = chosen.sort().values, rest[:val].sort().values, rest[val:].sort().values
    parts = split if setting == "inductive" else (torch.arange(n),)
    if (smallest := min(map(len, parts))) <= neighbours:
        raise ValueError(
            f"dataset.neighbours must be < {smallest}, the size of the smallest split in the inductive setting, got "
            f"{neighbours}. Example: dataset.neighbours=8 dataset.train=20 dataset.val=200"
        )
    edges = torch.cat([index[nearest(data[index.numpy()], neighbours)] for index in parts], 1)
    return node_set(
        "knn_digits",
        NodeGraph.of(torch.tensor(data).float() / 16, edges),
        labels,
        split,
        setting=setting,
        class_names=tuple(str(c) for c in range(10)),
        licence="CC BY 4.0 (UCI Machine Learning Repository); copied from scikit-learn",
        citation="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
        device=device,
    )


def nearest(data: NDArray[Any], neighbours: int) -> Tensor:
    """Return the edges between each row of `data (n, d)` and its nearest rows, in both directions, int64 `(2, e)`."""
    from sklearn.neighbors import NearestNeighbors  # slow to import

    near = NearestNeighbors(n_neighbors=neighbours + 1).fit(data).kneighbors(data, return_distance=False)
    sender = torch.arange(len(data)).repeat_interleave(neighbours + 1)
    return undirected(torch.stack([sender, torch.from_numpy(near).flatten().long()]))[0]
