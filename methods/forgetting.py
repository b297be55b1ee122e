"""Forgetting: how often an image that was classified correctly is misclassified later (Toneva et al., ICLR 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from ._dynamics import ScoreCoreset


class Forgetting(ScoreCoreset):
    """Difficulty = number of points of the training at which an image is wrong after it was right at the point before.

    Images that are never right are the hardest. Images with the same count are ranked at random.

    Deviations: images are selected class by class. DeepCore gives images that are never right a count of 0, so that
    they are among the easiest; the paper gives them an infinite count, as here.
    """

    citation = "Toneva et al., An Empirical Study of Example Forgetting during Deep Neural Network Learning, ICLR 2019"

    def difficulty(self, p: Tensor, norms: Tensor, c: int, generator: torch.Generator) -> Tensor:
        """See `ScoreCoreset`."""
        tie = torch.rand(p.shape[1], generator=generator, dtype=p.dtype, device=p.device)
        return forgetting_events(p, c).to(p.dtype) + tie


def forgetting_events(p: Tensor, c: int) -> Tensor:
    """Return the number of forgetting events of images of class `c`, `(n,)`; K for images that are never right.

    `p (K, n, k)` are probabilities at K points, so that at most K - 1 events are possible.
    """
    right = p.argmax(2) == c  # (K, n)
    events = (right[:-1] & ~right[1:]).sum(0)
    return torch.where(right.any(0), events, len(p))
