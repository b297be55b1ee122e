"""Distances and groupings that two or more matching methods share."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from dd_bench.data.dataset import RealSet
from dd_bench.models.architecture import Architecture
from dd_bench.runtime.context import ContextWithNotes


def mean_match(real: Tensor, syn: Tensor) -> Tensor:
    """Squared distance of class means, summed over classes: `sum_c ||mean_b real_c - mean_b syn_c||^2`.

    Args:
        real: features of real images, `(k, b, d)`.
        syn: features of synthetic images, `(k, b', d)`.

    Returns:
        0-d loss >= 0; 0 for equal means (DM, equation 4; both terms of DataDAM).
    """
    return (real.mean(1) - syn.mean(1)).square().sum()


def class_chunks(num_classes: int, size: int | None, net: nn.Module) -> Iterator[slice]:
    """Yield slices of classes to compute together; the sum of their losses and gradients is the whole's.

    All classes at once unless `size` is given. With BatchNorm in train mode there is only one exact grouping,
    the whole: a sample's features depend on the batch it stands in.

    Raises:
        ValueError: `size` is not positive, or would split the batch of a BatchNorm network.
    """
    if size is not None and size < 1:
        raise ValueError(
            f"method.class_chunk={size}: wanted the number of classes to compute at once, or null"
        )
    if size is None or size >= num_classes:
        size = num_classes
    elif any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in net.modules()):
        raise ValueError(
            f"method.class_chunk={size} would change the batch statistics of a BatchNorm network. "
            "Use method.class_chunk=null, and a smaller method.batch_real if memory is short"
        )
    for start in range(0, num_classes, size):
        yield slice(start, min(start + size, num_classes))


def check_norm(norm: str | None, architecture: Architecture) -> str | None:
    """Return why a method cannot have its network's norm replaced by `norm`, or None."""
    if norm is None or "norm" in architecture.knobs:
        return None
    return f"method.norm={norm} needs a knob that {architecture.title} has not. Use method.norm=null"


def real_batch(real: RealSet, size: int, ctx: ContextWithNotes, *name: str | int) -> Tensor:
    """Draw `size` real images of each class for the stream `name`: inputs `(k, b, c, h, w)`.

    Without replacement within a batch, a fresh draw each time. A class with fewer images bounds b for all,
    which is noted in the record: the reference lets the batch of that class shrink silently.
    """
    if size < 1:
        raise ValueError(f"method.batch_real={size}: wanted at least one real image a class")
    smallest = int(real.train.counts.min())
    if size > smallest:
        ctx.note(
            f"batches of {size} real images a class were cut to {smallest}, the smallest class of {real.name}"
        )
    index = real.train.draw(min(size, smallest), ctx.generator("real", *name))
    images = real.train.inputs(index.flatten())
    return images.view(*index.shape, *images.shape[1:])
