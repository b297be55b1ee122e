"""Full: the whole training set, as a reference for the highest accuracy in every table."""

from __future__ import annotations

import torch

from dd_bench.api import DistillContext, Method, RealSet, SyntheticSet, build_coreset


class Full(Method):
    """Return the unchanged training set. `ipc` only determines the column in the tables."""

    modalities = ("image", "graph", "node")
    whole = True
    citation = "the whole training set"
    deterministic = True

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> SyntheticSet:
        """See `Method`."""
        return build_coreset(real, torch.arange(len(real.train), device=ctx.device), whole=True)
