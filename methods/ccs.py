"""CCS: coverage-centric coreset selection (Zheng et al., ICLR 2023)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from dd_bench.api import Dynamics, RealSet

from ._dynamics import DynamicsCoreset, checked_share, margins, without_hardest


class CCS(DynamicsCoreset):
    """Drop the share `beta` of hardest images, divide the range of difficulty into strata, and sample from each.

    The difficulty is -AUM. The strata have equal width. They are visited from the one with the fewest images, and each
    gets an equal share of the images that are left to select, or all of its images.

    Deviations: images are selected class by class. There are at most `ipc` strata: with more strata than images, the
    integer division of the released code gives 0 to all but the fullest strata. The paper publishes `beta` for pruning
    up to 90 %, not for a few images per class; choose it on validation data (`dd-bench tune`).
    """

    citation = "Zheng et al., Coverage-centric Coreset Selection for High Pruning Rates, ICLR 2023"

    def __init__(
        self,
        *,
        teacher: dict[str, Any],
        outputs: Literal["training", "clean"],
        strata: int,
        beta: float,
    ):
        """Take what the base class takes, the largest number of strata, and the share of hardest images to drop.

        Raises:
            ValueError: `strata` is < 1 or `beta` is not in [0, 1).
        """
        super().__init__(teacher=teacher, outputs=outputs)
        if strata < 1:
            raise ValueError(f"method.strata must be >= 1, got {strata}. Example: method.strata=50")
        self.strata, self.beta = strata, checked_share(beta)

    def select(
        self, dynamics: Dynamics, real: RealSet, c: int, ipc: int, generator: torch.Generator
    ) -> Tensor:
        """See `DynamicsCoreset`."""
        difficulty = -margins(dynamics.probabilities(real.train.of_class(c)), c).mean(0)
        kept = without_hardest(difficulty, self.beta, ipc)
        return kept[stratified(difficulty[kept], ipc, min(self.strata, ipc), generator)]


def stratified(difficulty: Tensor, count: int, strata: int, generator: torch.Generator) -> Tensor:
    """Return the positions of `count` images, drawn at random from strata of equal width of `difficulty (n,)`."""
    low, high = difficulty.aminmax()
    share = (difficulty - low) / (high - low).clamp_min(torch.finfo(difficulty.dtype).tiny)
    stratum = (share * strata).long().clamp_max(strata - 1)
    sizes = torch.bincount(stratum, minlength=strata).tolist()
    order = torch.randperm(len(difficulty), generator=generator, device=difficulty.device)
    chosen, left = [], count
    for visited, s in enumerate(sorted(range(strata), key=sizes.__getitem__)):
        take = min(sizes[s], left // (strata - visited))
        chosen.append(order[stratum[order] == s][:take])
        left -= take
    return torch.cat(chosen)
