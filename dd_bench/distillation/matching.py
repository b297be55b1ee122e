"""Functions shared by several matching methods."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from dd_bench.data.dataset import RealSet
from dd_bench.models.architecture import Architecture
from dd_bench.runtime.context import ContextWithNotes


def mean_match(real: Tensor, syn: Tensor) -> Tensor:
    """Return the squared distance of class means, summed over classes: `sum_c ||mean_b real_c - mean_b syn_c||^2`.

    Args:
        real: features of b real images per class, `(k, b, d)`.
        syn: features of b' synthetic images per class, `(k, b', d)`.

    Returns:
        0-d loss >= 0, which is 0 for equal means (DM, equation 4; both terms of DataDAM).
    """
    return (real.mean(1) - syn.mean(1)).square().sum()


def class_chunks(num_classes: int, size: int | None, net: nn.Module) -> Iterator[slice]:
    """Yield slices of at most `size` classes. The sum of the losses of all slices is the loss of all classes.

    If `size` is None, there is one slice with all classes. BatchNorm in train mode requires a single slice, because the
    features of a sample depend on the other samples of the batch.

    Raises:
        ValueError: `size` is < 1, or would split the batch of a BatchNorm network.
    """
    if size is not None and size < 1:
        raise ValueError(
            f"method.class_chunk must be an integer >= 1 or null, got {size}. Example: method.class_chunk=5"
        )
    if size is None or size >= num_classes:
        size = num_classes
    elif any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in net.modules()):
        raise ValueError(
            f"method.class_chunk={size} would change the batch statistics of a BatchNorm network. "
            "Use method.class_chunk=null, with a smaller method.batch_real to save memory"
        )
    for start in range(0, num_classes, size):
        yield slice(start, min(start + size, num_classes))


def check_norm(norm: str | None, architecture: Architecture) -> str | None:
    """Return why a method cannot replace the normalisation layers of its network by `norm`, or None if it can."""
    if norm is None or "norm" in architecture.knobs:
        return None
    return f"method.norm={norm} requires model.norm, which {architecture.title} does not have. Use method.norm=null"


def real_batch(real: RealSet, size: int, ctx: ContextWithNotes, *name: str | int) -> Tensor:
    """Draw `size` real images of each class from the stream `name`, and return them as inputs `(k, b, c, h, w)`.

    Images are drawn without replacement within a batch, and independently for each batch. If a class has fewer than
    `size` images, b is the size of the smallest class, for all classes, and the record gets a note. In the released
    code of DM and DC, only the batch of a class with too few images is smaller, without a message.
    """
    if size < 1:
        raise ValueError(f"method.batch_real must be >= 1, got {size}. Example: method.batch_real=64")
    smallest = int(real.train.counts.min())
    if size > smallest:
        ctx.note(
            f"batches of {size} real images a class were cut to {smallest}, the smallest class of {real.name}"
        )
    index = real.train.draw(min(size, smallest), ctx.generator("real", *name))
    images = real.train.inputs(index.flatten())
    return images.view(*index.shape, *images.shape[1:])
