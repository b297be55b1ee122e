"""Whole real images, ranked by how sure a teacher is of their class (DELT, Shen et al., CVPR 2025)."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dd_bench.api import (
    DistillContext,
    Pick,
    RealSet,
    Shard,
    Teacher,
    check_class_sizes,
    eval_batch_size,
    select_ranked,
)


class Rank(BaseModel):
    """The keys of `method.rank`.

    Attributes:
        by: `probability` of the true class, or `loss`, its negative logarithm. Both give the same order, except that
            images whose probability is rounded to 1 are equal by `probability` and differ by `loss`.
        pick: which images of the ranking are taken. `medium` starts at the median and continues on both sides in turn.
        pool: number of images of each class that are ranked, the first ones of the training split; None: all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Literal["probability", "loss"]
    pick: Pick
    pool: int | None = Field(ge=1)

    def check(self, real: RealSet, ipc: int, count: int) -> str | None:
        """Return why `count` images of each class cannot be taken for a set of `ipc` images per class, or None."""
        if reason := check_class_sizes(real, ipc, count):
            return reason
        if self.pool is not None and count > self.pool:
            return (
                f"method.rank.pool must be >= {count} for ipc={ipc}, got {self.pool}. "
                f"Example: method.rank.pool={count}"
            )
        return None


def ranked_images(
    real: RealSet, count: int, observer: Teacher, settings: Rank, ctx: DistillContext
) -> Tensor:
    """Return the indices of `count` training images of each class, `(k, count)`, in the order in which they are taken.

    Each class is one shard. The result does not depend on the seed of the run.
    """
    units = {
        f"rank{c}": partial(_class_images, real, count, c, observer, settings)
        for c in range(real.num_classes)
    }
    shards = ctx.shards(units)
    return torch.stack([shards[name]["index"] for name in units]).to(real.train.labels.device)


def _class_images(
    real: RealSet, count: int, c: int, observer: Teacher, settings: Rank, ctx: DistillContext
) -> Shard:
    """Return the `index`, int64 `(count,)`, of the images of class `c`."""
    index = real.train.of_class(c)[: settings.pool]
    score = difficulty(real, index, c, observer, settings.by)
    return {"index": index[select_ranked(score, count, settings.pick)]}


def difficulty(
    real: RealSet, index: Tensor, c: int, observer: Teacher, by: Literal["probability", "loss"]
) -> Tensor:
    """Return how unsure `observer` is of class `c` for the training images `index (n,)`, float64 `(n,)`.

    The images are not augmented. The values are minus the probability, or minus its logarithm.
    """
    size = eval_batch_size(observer.net, real.shape)
    logits = torch.cat([observer.logits(real.train.inputs(part), exact=True) for part in index.split(size)])
    log_p = F.log_softmax(logits.double(), 1)[:, c]
    return -log_p if by == "loss" else -log_p.exp()
