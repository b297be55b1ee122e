"""Representatives of a class: the samples nearest to the centroids of k-means."""

from __future__ import annotations

import torch
from torch import Tensor


def representatives(features: Tensor, count: int, restarts: int, seed: int) -> Tensor:
    """Return the rows of `features (n, d)` nearest to each of `count` centroids, `(count,)`, all different.

    k-means++ by scikit-learn, the best of `restarts`; a sample nearest to two centroids is taken once, and the
    second takes its next nearest.
    """
    from sklearn.cluster import KMeans  # seconds to import, and few methods need it

    clustering = KMeans(count, n_init=restarts, random_state=seed % 2**32)
    clustering.fit(features.cpu().numpy())
    centroids = torch.as_tensor(clustering.cluster_centers_, device=features.device)
    distance = torch.cdist(centroids, features)  # (count, n)
    chosen = []
    for row in distance:
        pick = row.argmin()
        distance[:, pick] = torch.inf
        chosen.append(pick)
    return torch.stack(chosen)
