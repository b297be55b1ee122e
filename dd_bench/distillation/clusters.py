"""Representative samples of a class: those nearest to the centroids of k-means."""

from __future__ import annotations

import torch
from torch import Tensor


def representatives(features: Tensor, count: int, restarts: int, seed: int) -> Tensor:
    """Return the indices of the rows of `features (n, d)` nearest to `count` centroids, `(count,)`, all different.

    The centroids are those of the best of `restarts` runs of scikit-learn's k-means++. If a sample is nearest to two
    centroids, the second centroid gets its nearest unused sample.
    """
    from sklearn.cluster import KMeans  # slow to import, and few methods need it

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
