"""GraNd: the norm of the gradient of the loss of an image (Paul et al., NeurIPS 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from ._dynamics import errors
from .el2n import EL2N


class GraNd(EL2N):
    """Difficulty = mean of ||p - y|| sqrt(1 + ||h||^2) over the first `first_points` points of the training.

    It is the norm of the gradient of the cross-entropy with respect to the weights and biases of the last layer, whose
    input is the embedding h. The same paper as EL2N.

    Deviations: the paper takes the gradient with respect to all parameters, at the initialisation of 10 networks. This
    is the form of DeepCore (Guo et al., 2022) for the last layer, averaged over points of one training, class by class.
    """

    citation = EL2N.citation
    deterministic = True

    def difficulty(self, p: Tensor, norms: Tensor, c: int, generator: torch.Generator) -> Tensor:
        """See `ScoreCoreset`."""
        size = (1 + norms[: self.first_points].square()).sqrt()
        return (errors(p[: self.first_points], c) * size).mean(0)
