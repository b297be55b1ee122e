"""Full: the whole training set, the ceiling of every table."""

from __future__ import annotations

import torch

from dd_bench.api import Context, Method
from dd_bench.data.dataset import RealSet
from dd_bench.distill.coreset import selected
from dd_bench.synthetic.base import SyntheticSet


class Full(Method):
    """Returns the training set as it is; `ipc` only names the column that the row stands beside."""

    modalities = ("image", "graph")
    citation = "the whole training set"
    deterministic = True

    def distill(self, real: RealSet, ipc: int, ctx: Context) -> SyntheticSet:
        """See `Method`."""
        return selected(real, torch.arange(len(real.train), device=ctx.device), whole=True)
