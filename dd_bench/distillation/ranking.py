"""Select the easiest, medium or hardest of ranked samples."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Pick = Literal["easy", "medium", "hard"]
PICKS: tuple[Pick, ...] = ("easy", "medium", "hard")


def select_ranked(difficulty: Tensor, count: int, pick: Pick) -> Tensor:
    """Return the positions of the `count` easiest, medium or hardest of n images, `(count,)`.

    Of images with equal difficulty, those with the smaller index come first.
    """
    ascending = difficulty.argsort(stable=True)
    if pick == "easy":
        return ascending[:count]
    if pick == "hard":
        return (-difficulty).argsort(stable=True)[:count]
    centre = (len(ascending) - 1) // 2
    away = torch.arange(len(ascending), device=ascending.device) - centre  # 0, then +1, -1, +2, -2, ...
    return ascending[(2 * away.abs() - (away > 0).long()).argsort()[:count]]
