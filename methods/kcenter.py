"""K-Center: greedy farthest-point selection that covers a class (Sener and Savarese, ICLR 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from ._coreset import FeatureCoreset


class KCenter(FeatureCoreset):
    """Select the image nearest to the class mean, then repeatedly the image farthest from its nearest selected image.

    This favours outliers. On Fashion-MNIST with ipc 10, the published accuracy is below that of random selection.
    DC-BENCH uses the name K-Center for a different method, k-means selection (`kmeans`).
    """

    citation = (
        "Sener and Savarese, Active Learning for Convolutional Neural Networks: "
        "A Core-Set Approach, ICLR 2018"
    )
    deterministic = True

    def select(self, features: Tensor, ipc: int, seed: int) -> Tensor:
        """See `FeatureCoreset`."""
        chosen = [(features - features.mean(0)).square().sum(1).argmin()]
        distance = (features - features[chosen[0]]).square().sum(1)  # squared, to the nearest selected image
        for _ in range(ipc - 1):
            distance[
                chosen[-1]
            ] = -1.0  # never select an image twice, even if all others are duplicates of it
            chosen.append(distance.argmax())
            distance = torch.minimum(distance, (features - features[chosen[-1]]).square().sum(1))
        return torch.stack(chosen)
