"""Moderate: the images at a median distance from the class mean in feature space (Xia et al., ICLR 2023)."""

from __future__ import annotations

from torch import Tensor

from ._coreset import FeatureCoreset


class Moderate(FeatureCoreset):
    """Select the images whose distance from the mean embedding of the class is closest to the median distance.

    The method has no hyper-parameters of its own. Images are selected class by class, as in the paper.
    """

    citation = (
        "Xia et al., Moderate Coreset: A Universal Method of Data Selection for Real-world Data-efficient Deep "
        "Learning, ICLR 2023"
    )
    deterministic = True

    def select(self, features: Tensor, ipc: int, seed: int) -> Tensor:
        """See `FeatureCoreset`."""
        distance: Tensor = (features - features.mean(0)).norm(dim=1)
        return (distance - distance.quantile(0.5)).abs().argsort(stable=True)[:ipc]
