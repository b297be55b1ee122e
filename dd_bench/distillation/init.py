"""Initial synthetic images. All methods that start from real images use the same real images for a given seed."""

from __future__ import annotations

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.runtime.context import RunContext

INITS = ("real", "noise")


def random_index(real: RealSet, per_class: int, ctx: RunContext) -> Tensor:
    """Draw `per_class` training images of each class without replacement, and return their indices `(k, per_class)`."""
    return real.train.draw(per_class, ctx.generator("init"))


def random_rows(n: int, count: int | None, generator: torch.Generator) -> Tensor:
    """Draw up to `count` of `n` rows uniformly without replacement, `(count,)`; None returns all rows in order."""
    if count is None:
        return torch.arange(n, device=generator.device)
    return torch.randperm(n, generator=generator, device=generator.device)[:count]


def initial_images(init: str, real: RealSet, ipc: int, ctx: RunContext) -> Tensor:
    """Return initial images as network inputs `(k, ipc, c, h, w)`: real images, or N(0, 1) noise.

    Raises:
        ValueError: `init` is unknown.
    """
    if init == "real":
        index = random_index(real, ipc, ctx)
        images = real.train.inputs(index.flatten())
        return images.view(*index.shape, *images.shape[1:]).clone()
    if init == "noise":
        shape = (real.num_classes, ipc, *real.shape)
        return torch.randn(shape, generator=ctx.generator("init"), device=ctx.device)
    raise ValueError(f"method.init must be one of {', '.join(INITS)}, got {init!r}")


def class_labels(real: RealSet, ipc: int, device: torch.device) -> Tensor:
    """Return the hard labels of a set sorted by class, `(k * ipc,)`."""
    return torch.arange(real.num_classes, device=device).repeat_interleave(ipc)


def check_class_sizes(real: RealSet, ipc: int, images: int, init: str | None = None) -> str | None:
    """Return why `images` images of every class cannot be drawn from `real` without replacement, or None.

    `init` is the value of `method.init`, if the method has this hyper-parameter. The message then suggests noise.
    """
    counts = real.train.counts
    c = int(counts.argmin())
    available = int(counts[c])
    if images <= available:
        return None
    needed = "" if images == ipc else f" ({images} real images per class)"
    max_ipc = available * ipc // images
    fixes = (["method.init=noise"] if init else []) + (
        [f"ipc<={max_ipc}"] if max_ipc else ["a dataset with more images of this class"]
    )
    sampler = f"init={init}" if init else "this method"
    return (
        f"ipc={ipc}{needed} exceeds the size of class {real.class_names[c]!r} of {real.name} ({available} images), "
        f"and {sampler} samples without replacement. Use {' or '.join(fixes)}"
    )
