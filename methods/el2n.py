"""EL2N: the norm of the error of the predicted probabilities (Paul et al., NeurIPS 2021)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from dd_bench.api import Architecture, Pick, RealSet

from ._dynamics import ScoreCoreset, errors


class EL2N(ScoreCoreset):
    """Difficulty = mean of ||p - y|| over the first `first_points` points of the training.

    p are the predicted probabilities and y is the one-hot label.

    Deviations: the paper takes the mean of 10 networks after 10 % of their training, and keeps the hardest images of
    the whole set. This takes the mean over the early points of one network, like the released code of CCS (Zheng et
    al., ICLR 2023), and selects class by class.
    """

    citation = "Paul et al., Deep Learning on a Data Diet: Finding Important Examples Early in Training, NeurIPS 2021"
    deterministic = True
    smoke: ClassVar[dict[str, Any]] = {**ScoreCoreset.smoke, "first_points": 3}

    def __init__(
        self,
        *,
        teacher: dict[str, Any],
        outputs: Literal["training", "clean"],
        pick: Pick,
        first_points: int,
    ):
        """Take what the base class takes, and the number of points to average.

        Raises:
            ValueError: `first_points` is < 1.
        """
        super().__init__(teacher=teacher, outputs=outputs, pick=pick)
        if first_points < 1:
            raise ValueError(
                f"method.first_points must be >= 1, got {first_points}. Example: method.first_points=10"
            )
        self.first_points = first_points

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        return super().check_dataset(real, ipc, architecture) or self._check_points(real)

    def _check_points(self, real: RealSet) -> str | None:
        """Return why there are fewer recorded points than `first_points`, or None."""
        recorded = self.recipe.with_epochs(len(real.train)).epochs
        if self.first_points <= recorded:
            return None
        return (
            f"method.first_points must be at most the number of epochs of method.teacher, {recorded}, after each of "
            f"which predictions are recorded, got {self.first_points}. Use method.first_points={recorded}"
        )

    def difficulty(self, p: Tensor, norms: Tensor, c: int, generator: torch.Generator) -> Tensor:
        """See `ScoreCoreset`."""
        return errors(p[: self.first_points], c).mean(0)
