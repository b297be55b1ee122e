"""Easiest: the images with the smallest loss under a trained network (RDED's realism score, Sun et al., CVPR 2024)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ._dynamics import ScoreCoreset


class Easiest(ScoreCoreset):
    """Select the images with the largest probability of their true class under the trained network.

    Deviations: RDED scores random crops and stitches four of them to one image, and its networks learn from soft
    labels (`method=rded`). This selects whole images of a class by the same score, with any labels.
    """

    citation = (
        "Sun et al., On the Diversity and Realism of Distilled Dataset: An Efficient Dataset Distillation "
        "Paradigm, CVPR 2024"
    )
    deterministic = True

    def __init__(self, *, teacher: dict[str, Any], outputs: Literal["training", "clean"]):
        """See `DynamicsCoreset`."""
        super().__init__(teacher=teacher, outputs=outputs, pick="easy")

    def difficulty(self, p: Tensor, norms: Tensor, c: int, generator: torch.Generator) -> Tensor:
        """See `ScoreCoreset`."""
        return 1 - p[-1, :, c]
