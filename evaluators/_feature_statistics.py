"""Statistics of a set in a feature space: coverage and density, redundancy, and the nearest real images."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dd_bench.api import RealSet

Features = Callable[[Tensor], Tensor]
"""Maps indices of training images `(b,)` to their features `(b, d)`."""
MAX_DISTANCES = 16 << 20
"""Maximum number of distances that are stored at once; they take 64 MB."""


def half_coverage_neighbours(n: int, m: int) -> int:
    """Return the k for which m images, drawn independently of n real ones, cover half of these in expectation.

    The probability that one image is among the k nearest of a real image is k / n, so the expected coverage is
    1 - (1 - k / n)^m. The result is at least 1.
    """
    return max(1, round(n * (1 - math.exp2(-1 / m))))


def coverage_and_density(real: Tensor, syn: Tensor, neighbours: int | None) -> tuple[float, float]:
    """Return coverage in [0, 1] and density >= 0 of Naeem et al. (ICML 2020), for the images of one class.

    The ball of a real image has the distance to its k-th nearest other real image as its radius. Coverage is the share
    of balls that contain a synthetic image. Density is the number of balls that contain a synthetic image, divided by
    k, on average over the synthetic images; it is 1 in expectation for images of the same distribution.

    Args:
        real: features of real images, `(n, d)` with n >= 2.
        syn: features of synthetic images, `(m, d)`. For m = 0, both results are 0.
        neighbours: k; None: `half_coverage_neighbours`.
    """
    n, m = len(real), len(syn)
    if m == 0:
        return 0.0, 0.0
    k = min(neighbours or half_coverage_neighbours(n, m), n - 1)
    real, syn = real.double(), syn.double()
    radius = torch.cdist(real, real).kthvalue(k + 1, dim=1).values  # the nearest is the image itself
    inside = torch.cdist(real, syn) <= radius[:, None] * (1 + 1e-9) + 1e-6  # (n, m); rounding of equal images
    return float(inside.any(1).double().mean()), float(inside.sum() / (k * m))


def redundancy(features: Tensor) -> tuple[float, float] | None:
    """Return the mean cosine of pairs, and the mean cosine of each image and its nearest other image.

    Args:
        features: features of the images of one class, `(m, d)`, minus the mean over all classes. Otherwise all cosines
            of features >= 0 are near 1. The result is None for m < 2.
    """
    m = len(features)
    if m < 2:
        return None
    unit = F.normalize(features.double(), dim=1)
    cosine = unit @ unit.T
    pairs = float((cosine.sum() - cosine.diagonal().sum()) / (m * (m - 1)))
    return pairs, float(cosine.fill_diagonal_(-torch.inf).amax(1).mean())


def nearest_distances(
    queries: Tensor, real: RealSet, features: Features, size: int, own: Tensor | None = None
) -> Tensor:
    """Return the root mean squared distance of each query to the nearest training image, `(q,)` on the CPU.

    Args:
        queries: features, `(q, d)`.
        real: the real set; all of its training images are searched.
        features: computes the features of training images, which are compared with `queries`.
        size: maximum number of training images whose features are computed at once.
        own: index of each query in the training split, which is not a neighbour of itself; None: the queries are not
            training images.
    """
    size = max(1, min(size, MAX_DISTANCES // len(queries)))
    best = torch.full((len(queries),), torch.inf, device=queries.device)
    nearest = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    for index in torch.arange(len(real.train), device=queries.device).split(size):
        distance = torch.cdist(queries, features(index))
        if own is not None:
            distance = distance.masked_fill(own[:, None] == index, torch.inf)
        low = distance.min(1)
        closer = low.values < best
        best, nearest = (
            torch.where(closer, low.values, best),
            torch.where(closer, index[low.indices], nearest),
        )
    # torch.cdist uses matrix products, which do not give exactly 0 for equal images
    exact = torch.cat([features(part) for part in nearest.split(size)])
    return (queries - exact).square().mean(1).sqrt().cpu()
