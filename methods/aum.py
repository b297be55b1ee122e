"""AUM: the area under the margin (Pleiss et al., NeurIPS 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from ._dynamics import ScoreCoreset, margins


class AUM(ScoreCoreset):
    """Difficulty = -AUM, where AUM is the mean over all points of the training of p(true class) - max p(other class).

    Deviations: the paper uses logits, and finds mislabelled images with it. The released code of CCS (Zheng et al.,
    ICLR 2023) uses probabilities, as here. Images are selected class by class.
    """

    citation = (
        "Pleiss et al., Identifying Mislabeled Data using the Area Under the Margin Ranking, NeurIPS 2020"
    )
    deterministic = True

    def difficulty(self, p: Tensor, norms: Tensor, c: int, generator: torch.Generator) -> Tensor:
        """See `ScoreCoreset`."""
        return -margins(p, c).mean(0)
