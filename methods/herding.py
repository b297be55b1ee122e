"""Herding: greedy selection of images whose mean approximates the class mean (Welling, ICML 2009)."""

from __future__ import annotations

import torch
from torch import Tensor

from ._coreset import FeatureCoreset


class Herding(FeatureCoreset):
    """Step j selects the unused image whose features are nearest to `(j + 1) * mean - sum of the selected features`.

    The mean is over all images of the class. As in the condensation papers, each image is selected at most once.
    """

    citation = "Welling, Herding Dynamical Weights to Learn, ICML 2009"
    deterministic = True

    def select(self, features: Tensor, ipc: int, seed: int) -> Tensor:
        """See `FeatureCoreset`."""
        mean, total = features.mean(0), torch.zeros_like(features[0])
        unused = torch.ones(len(features), dtype=torch.bool, device=features.device)
        chosen = []
        for j in range(ipc):
            distance = (features - ((j + 1) * mean - total)).square().sum(1)
            pick = distance.masked_fill(~unused, torch.inf).argmin()
            unused[pick] = False
            total = total + features[pick]
            chosen.append(pick)
        return torch.stack(chosen)
