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
    return nearest_unused(centroids(features, count, restarts, seed), features)


def nearest_unused(points: Tensor, candidates: Tensor) -> Tensor:
    """Return the index of the nearest unused candidate of each point, in the order of the points, `(n,)`.

    Args:
        points: `(n, d)`.
        candidates: `(m, d)` with m >= n.
    """
    distances = torch.cdist(points, candidates)
    chosen = []
    for row in distances:
        pick = row.argmin()
        distances[:, pick] = torch.inf
        chosen.append(pick)
    return torch.stack(chosen)
