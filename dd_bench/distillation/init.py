"""Where synthetic images start. Methods that start from real images start from the same ones at a seed."""

from __future__ import annotations

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.runtime.context import RunContext

INITS = ("real", "noise")


def random_index(real: RealSet, per_class: int, ctx: RunContext) -> Tensor:
    """Draw `per_class` training images of each class without replacement: indices `(k, per_class)`."""
    return real.train.draw(per_class, ctx.generator("init"))


def initial_images(init: str, real: RealSet, ipc: int, ctx: RunContext) -> Tensor:
    """Return starting images as network inputs, `(k, ipc, c, h, w)`: real ones, or N(0, 1) noise.

    Raises:
        ValueError: an unknown `init`.
    """
    if init == "real":
        index = random_index(real, ipc, ctx)
        images = real.train.inputs(index.flatten())
        return images.view(*index.shape, *images.shape[1:]).clone()
    if init == "noise":
        shape = (real.num_classes, ipc, *real.shape)
        return torch.randn(shape, generator=ctx.generator("init"), device=ctx.device)
    raise ValueError(f"method.init={init!r} is unknown; take one of {', '.join(INITS)}")


def class_labels(real: RealSet, ipc: int, device: torch.device) -> Tensor:
    """Return hard labels of a class-major set, `(k * ipc,)`."""
    return torch.arange(real.num_classes, device=device).repeat_interleave(ipc)


def check_class_sizes(real: RealSet, ipc: int, images: int, init: str | None = None) -> str | None:
    """Return why `images` images of every class cannot be drawn from `real` without replacement, or None.

    `init` is the method's choice of that name, if it has one: then noise is the way out.
    """
    counts = real.train.counts
    c = int(counts.argmin())
    if images <= int(counts[c]):
        return None
    each = "" if images == ipc else f" ({images} real images a class)"
    most = int(counts[c]) * ipc // images
    instead = (["method.init=noise"] if init else []) + ([f"ipc<={most}"] if most else ["more real images"])
    who = f"init={init}" if init else "this method"
    return (
        f"ipc={ipc}{each} exceeds class {real.class_names[c]!r} of {real.name} ({int(counts[c])} images), "
        f"and {who} samples without replacement. Use {' or '.join(instead)}"
    )
