"""Initial images of recovery: noise, random real images, RDED's composites, or real images ranked by a teacher."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dd_bench.api import DistillContext, RealSet, Teacher, check_class_sizes, random_index

from .layout import Unit
from .patches import Patches, composites
from .ranked import Rank, ranked_images

Start = Callable[[Unit], Tensor]
"""A function that returns the initial images of a unit, network inputs `(b, c, h, w)`."""
INITS = ("noise", "real", "patches")
RANKED_INITS = (*INITS, "ranked")
TEACHERS = ("first", "cycle")
"""Which teachers guide recovery: the first one of the run, or one per step, in turn."""


def check_start(init: str, real: RealSet, ipc: int, patches: Patches, rank: Rank | None) -> str | None:
    """Return why there are no `ipc` initial images for each class of `real`, or None."""
    if init == "patches":
        return patches.check(real, ipc)
    if init == "ranked" and rank is not None:
        return rank.check(real, ipc, ipc)
    return check_class_sizes(real, ipc, ipc, init) if init == "real" else None


def initial(
    init: str,
    real: RealSet,
    ipc: int,
    observer: Teacher,
    patches: Patches,
    rank: Rank | None,
    ctx: DistillContext,
) -> Start:
    """Return the initial images of each unit.

    Args:
        init: `noise`, `real`, `patches`, or `ranked`, which requires `rank`.
        real: the real set.
        ipc: images per class.
        observer: the teacher that selects patches, and ranks images.
        patches: how composites are made.
        rank: how real images are ranked.
        ctx: context of the run.
    """
    if init == "noise":

        def noise(unit: Unit) -> Tensor:
            generator = ctx.generator("noise", *unit.stream)
            shape = (len(unit.classes) * len(unit.slots), *real.shape)
            return torch.randn(shape, generator=generator, device=ctx.device)

        return noise
    if init == "patches":
        pixels = composites(real, ipc, observer, patches, ctx).to(ctx.device)  # (k, ipc, c, h, w)
        return lambda unit: real.preprocess(unit.of(pixels).float() / 255)
    if init == "ranked":
        assert rank is not None
        index = ranked_images(real, ipc, observer, rank, ctx)  # (k, ipc)
    else:
        index = random_index(real, ipc, ctx)
    return lambda unit: real.train.inputs(unit.of(index))
