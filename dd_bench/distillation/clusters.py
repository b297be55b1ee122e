"""Centroids of k-means, and the samples nearest to them."""

from __future__ import annotations

import torch
from torch import Tensor


def centroids(features: Tensor, count: int, restarts: int, seed: int) -> Tensor:
    """Return `count` centroids of the rows of `features (n, d)`, `(count, d)`: the best of `restarts` of k-means++."""
    from sklearn.cluster import KMeans  # slow to import, and few methods need it

    clustering = KMeans(count, n_init=restarts, random_state=seed % 2**32)
    clustering.fit(features.cpu().numpy())
    return torch.as_tensor(clustering.cluster_centers_, device=features.device)


def representatives(features: Tensor, count: int, restarts: int, seed: int) -> Tensor:
    """Return the indices of the rows of `features (n, d)` nearest to `count` centroids, `(count,)`, all different.

    See `centroids` for the other arguments. If a sample is nearest to two centroids, the second centroid gets its
    nearest unused sample.
    """
    distance = torch.cdist(centroids(features, count, restarts, seed), features)  # (count, n)
    chosen = []
    for row in distance:
        pick = row.argmin()
        distance[:, pick] = torch.inf
        chosen.append(pick)
    return torch.stack(chosen)
