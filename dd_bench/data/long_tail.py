"""Long-tailed training data: class sizes that decrease exponentially from the first to the last class."""

from __future__ import annotations

import torch
from torch import Tensor

from dd_bench.data.dataset import Split
from dd_bench.runtime.seeding import generator


def class_sizes(largest: int, k: int, imbalance: float) -> list[int]:
    """Return `largest * imbalance^(-c / (k - 1))` for the classes c = 0 to k - 1, rounded down, and at least 1.

    The first class is `imbalance` times as large as the last one (Cui et al., CVPR 2019; Cao et al., NeurIPS 2019).
    """
    # without the small term, an exact quotient such as 100 / 100 could be rounded down to 0.99...
    return [max(1, int(largest * imbalance ** (-c / max(1, k - 1)) + 1e-6)) for c in range(k)]


def long_tailed_index(split: Split, imbalance: float, part: str) -> Tensor:
    """Return the ascending indices of a long-tailed part of a split.

    The first class has as many images as the smallest class of the split, so that the sizes are those of `class_sizes`
    for every dataset. The images of class c are drawn with the random stream `("long tail", part, c)`.

    Args:
        split: the images to draw from.
        imbalance: size of the first class divided by that of the last one.
        part: name of the split, `train` or `val`.
    """
    sizes = class_sizes(int(split.counts.min()), split.num_classes, imbalance)
    kept = []
    for c, size in enumerate(sizes):
        index = split.of_class(c)
        order = torch.randperm(len(index), generator=generator("cpu", 0, "long tail", part, c))
        kept.append(index[order[:size].to(index.device)])
    return torch.cat(kept).sort().values
