"""K-Center: cover the class by repeatedly taking the farthest image (Sener and Savarese, ICLR 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from ._coreset import FeatureCoreset


class KCenter(FeatureCoreset):
    """Starts at the image nearest the class mean, then adds the one farthest from all chosen.

    Seeks outliers: on Fashion-MNIST the published row lies below random at IPC 10. Not to be confused with
    k-means selection (`kmeans`), which DC-BENCH calls K-Center.
    """

    citation = (
        "Sener and Savarese, Active Learning for Convolutional Neural Networks: "
        "A Core-Set Approach, ICLR 2018"
    )
    deterministic = True

    def select(self, features: Tensor, ipc: int, seed: int) -> Tensor:
        """See `FeatureCoreset`."""
        chosen = [(features - features.mean(0)).square().sum(1).argmin()]
        nearest = (features - features[chosen[0]]).square().sum(1)  # to the chosen, squared
        for _ in range(ipc - 1):
            nearest[chosen[-1]] = -1.0  # an image is picked once, also among duplicates
            chosen.append(nearest.argmax())
            nearest = torch.minimum(nearest, (features - features[chosen[-1]]).square().sum(1))
        return torch.stack(chosen)
