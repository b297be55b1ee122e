"""Permuted labels, a control whose labels carry no information on the class."""

from __future__ import annotations

import torch
from torch import Tensor


def permuted_labels(labels: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Return a permutation of the hard labels `(n,)` of `k` classes.

    The samples of each class receive labels of all classes in proportion to their frequency, up to rounding. A plain
    shuffle of a few samples would often leave most labels unchanged. With one sample per class there are few
    permutations, and the result may still equal the labels.
    """
    order = labels.argsort(stable=True)
    order = order[torch.randperm(len(order), generator=generator)]
    order = order[labels[order].argsort(stable=True)]  # class by class, shuffled within each
    counts = torch.bincount(labels, minlength=k)
    rank = torch.cat([torch.arange(int(n)) for n in counts])
    new = labels.sort().values
    offset = torch.rand(len(counts), generator=generator)
    position = (rank + offset[new]) / counts[new]  # spreads each label evenly over all samples
    permuted = torch.empty_like(labels)
    permuted[order] = new[position.argsort(stable=True)]
    return permuted
