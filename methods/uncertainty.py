"""Least confidence, margin and entropy: uncertainty sampling of active learning, without labels (Settles, 2009)."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from ._dynamics import ScoreCoreset


class Uncertainty(ScoreCoreset):
    """Difficulty = uncertainty of the trained network about an image, from its probabilities p at the last point.

    The scores do not use the label of the image. Deviation: active learning selects from unlabelled images, and this
    selects class by class, so the labels of the classes are used.
    """

    citation = "Settles, Active Learning Literature Survey, University of Wisconsin-Madison, 2009"

    def difficulty(self, p: Tensor, norms: Tensor, c: int, generator: torch.Generator) -> Tensor:
        """See `ScoreCoreset`."""
        return self.uncertainty(p[-1])

    @abstractmethod
    def uncertainty(self, p: Tensor) -> Tensor:
        """Return the uncertainties `(n,)` of the probabilities `(n, k)`."""


class LeastConfidence(Uncertainty):
    """Uncertainty = 1 - max p.

    DeepCore sorts the largest *logits* instead, and without class balance it selects the most confident images.
    """

    citation = Uncertainty.citation
    deterministic = True

    def uncertainty(self, p: Tensor) -> Tensor:
        """See `Uncertainty`."""
        return 1 - p.amax(1)


class Margin(Uncertainty):
    """Uncertainty = 1 - (p1 - p2), where p1 and p2 are the largest and second largest probabilities."""

    citation = Uncertainty.citation
    deterministic = True

    def uncertainty(self, p: Tensor) -> Tensor:
        """See `Uncertainty`."""
        first, second = p.topk(2, dim=1).values.unbind(1)
        return 1 - (first - second)


class Entropy(Uncertainty):
    """Uncertainty = - sum of p log p over the classes, in nats."""

    citation = Uncertainty.citation
    deterministic = True

    def uncertainty(self, p: Tensor) -> Tensor:
        """See `Uncertainty`."""
        entropy: Tensor = torch.special.entr(p).sum(1)
        return entropy
