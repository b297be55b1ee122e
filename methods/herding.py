"""Herding: greedy choice of images whose mean follows the class mean (Welling, ICML 2009)."""

from __future__ import annotations

import torch
from torch import Tensor

from ._coreset import FeatureCoreset


class Herding(FeatureCoreset):
    """At step j picks the unused image nearest to `(j + 1) * mean - sum of the chosen`.

    As the condensation papers run it: each image is picked once. Deterministic given the features.
    """

    citation = "Welling, Herding Dynamical Weights to Learn, ICML 2009"
    deterministic = True

    def select(self, features: Tensor, ipc: int, seed: int) -> Tensor:
        """See `FeatureCoreset`."""
        mean, total = features.mean(0), torch.zeros_like(features[0])
        free = torch.ones(len(features), dtype=torch.bool, device=features.device)
        chosen = []
        for j in range(ipc):
            distance = (features - ((j + 1) * mean - total)).square().sum(1)
            pick = distance.masked_fill(~free, torch.inf).argmin()
            free[pick] = False
            total = total + features[pick]
            chosen.append(pick)
        return torch.stack(chosen)
