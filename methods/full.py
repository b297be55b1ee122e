"""Full: the whole training set, the ceiling of every table."""

from __future__ import annotations

import torch

from dd_bench.base import Context, Method
from dd_bench.real import RealSet
from dd_bench.synthetic import ImageSet


class Full(Method):
    """Returns the training set as it is; `ipc` only names the column that the row stands beside."""

    citation = "the whole training set"
    deterministic = True

    def distill(self, real: RealSet, ipc: int, ctx: Context) -> ImageSet:
        """See `Method`."""
        return ImageSet.coreset(real, torch.arange(len(real.train), device=ctx.device), whole=True)
