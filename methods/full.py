"""Full: the whole training set, the ceiling of every table."""

from __future__ import annotations

import torch

from dd_bench.api import DistillContext, Method, RealSet, SyntheticSet, selected


class Full(Method):
    """Returns the training set as it is; `ipc` only names the column that the row stands beside."""

    modalities = ("image", "graph")
    citation = "the whole training set"
    deterministic = True

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> SyntheticSet:
        """See `Method`."""
        return selected(real, torch.arange(len(real.train), device=ctx.device), whole=True)
