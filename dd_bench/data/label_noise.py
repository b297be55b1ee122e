"""Label noise: a share of the training labels of each class is replaced by other classes."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from dd_bench.runtime.seeding import generator

NoiseKind = Literal["symmetric", "asymmetric"]
KINDS: tuple[str, ...] = get_args(NoiseKind)


def noisy_labels(labels: Tensor, k: int, rate: float, kind: NoiseKind, part: str) -> Tensor:
    """Return labels `(n,)` of which `round(rate * n_c)` are wrong for each class c with n_c images.

    `symmetric` replaces a label by one of the other k - 1 classes, all with the same probability. `asymmetric` replaces
    it by the next class, c + 1 modulo k (the "pair flip" of Han et al., NeurIPS 2018). The images of class c and their
    new labels are drawn with the random stream `("label noise", part, c)`.

    Args:
        labels: classes, int64.
        k: number of classes, at least 2.
        rate: share of wrong labels, in [0, 1).
        kind: see above.
        part: name of the split, `train` or `val`.
    """
    clean = labels.cpu()
    noisy = clean.clone()
    for c in range(k):
        stream = generator("cpu", 0, "label noise", part, c)
        index = (clean == c).nonzero().flatten()
        chosen = index[torch.randperm(len(index), generator=stream)[: round(rate * len(index))]]
        shift = torch.ones_like(chosen)
        if kind == "symmetric":
            shift = torch.randint(1, k, (len(chosen),), generator=stream)
        noisy[chosen] = (c + shift) % k
    return noisy.to(labels.device)
