"""Wasserstein barycentre of the features of a class, with equal masses (WMDD, Liu et al., ICCV 2025).

The free-support barycentre of one measure with equal masses at n points, with m atoms of equal mass, is found by
alternating between the optimal transport plan and the means of what each atom receives. If m divides n, an optimal plan
moves n / m whole points to each atom. So this is k-means with clusters of equal size.
"""

from __future__ import annotations

from functools import partial

import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dd_bench.api import DistillContext, RealSet, Shard, Teacher, eval_batch_size, to_device


class Barycenter(BaseModel):
    """The keys of `method.barycenter`.

    Attributes:
        images: maximum number of real images per class; those used are drawn at random, a multiple of the IPC.
        rounds: maximum number of rounds; the last one is that in which the plan does not change.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int = Field(ge=1)
    rounds: int = Field(ge=1)

    def check(self, ipc: int) -> str | None:
        """Return why there are no `ipc` atoms, or None."""
        if self.images >= ipc:
            return None
        return (
            f"method.barycenter.images must be >= ipc={ipc}, got {self.images}. "
            f"Example: method.barycenter.images={max(1000, ipc)}"
        )


def class_barycenters(
    real: RealSet, ipc: int, teacher: Teacher, settings: Barycenter, ctx: DistillContext
) -> Tensor:
    """Return the atoms of each class, float32 `(k, ipc, d)`, in the embedding of a teacher. Each class is one shard."""
    units = {
        f"barycenter{c}": partial(_class_atoms, real, ipc, c, teacher, settings)
        for c in range(real.num_classes)
    }
    shards = ctx.shards(units)
    return torch.stack([shards[name]["atoms"] for name in units]).to(ctx.device)


@torch.no_grad()
def _class_atoms(
    real: RealSet, ipc: int, c: int, teacher: Teacher, settings: Barycenter, ctx: DistillContext
) -> Shard:
    """Return the `atoms` of class `c`, `(ipc, d)`."""
    index, generator = real.train.of_class(c), ctx.stream("barycenter", c).host
    count = min(len(index), settings.images) // ipc * ipc
    order = torch.randperm(len(index), generator=generator)[:count]
    chosen = index[to_device(order, index.device)].split(eval_batch_size(teacher.net, real.shape))
    z = torch.cat([teacher.net.embed(real.train.inputs(part)).float() for part in chosen])
    return {"atoms": barycenter(z.double().cpu(), ipc, settings.rounds).float()}


def barycenter(z: Tensor, atoms: int, rounds: int) -> Tensor:
    """Return the atoms of the barycentre of the points `z (n, d)`, `(atoms, d)`; `atoms` must divide n.

    The initial atoms are the first points, because points that are far from all features would not be a good start.
    Points must be in random order.
    """
    b, before = z[:atoms], None
    for _ in range(rounds):
        owner = transport(b, z)
        if before is not None and torch.equal(owner, before):
            break
        before = owner
        b = torch.zeros_like(b).index_add_(0, owner, z) / (len(z) // atoms)
    return b


def transport(b: Tensor, z: Tensor) -> Tensor:
    """Return the atom that receives each point in the optimal transport of points to atoms, int64 `(n,)`.

    Args:
        b: atoms `(m, d)`, of mass 1 / m.
        z: points `(n, d)`, of mass 1 / n; m divides n.
    """
    share = len(z) // len(b)
    cost = torch.cdist(z, b).square().repeat_interleave(share, 1)  # each atom is share atoms of mass 1 / n
    _, column = linear_sum_assignment(cost.numpy())
    return torch.as_tensor(column) // share
