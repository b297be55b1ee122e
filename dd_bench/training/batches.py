"""Fetch, shuffle, augment and mix labelled batches as a recipe defines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from dd_bench.data.dataset import Split
from dd_bench.data.inputs import Inputs
from dd_bench.runtime import distributed
from dd_bench.runtime.seeding import Stream
from dd_bench.training.augment import Augment, cutmix
from dd_bench.training.losses import Target
from dd_bench.training.per_image_augment import PerImageAugment
from dd_bench.training.recipe import Recipe
from dd_bench.training.views import ViewRecipe, Views

Fetch = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps indices `(b,)` on the device to network inputs `(b, c, h, w)` and labels."""

LabelledBatches = Callable[[int], Iterator[tuple[Tensor, Tensor, Target]]]
"""Maps an epoch (0-based) to its batches: images before augmentation, network inputs, and their target."""


def fetch_from(images: Inputs, labels: Tensor) -> Fetch:
    """Return the `Fetch` of images `(n, c, h, w)` and labels on the device."""
    return lambda index: (images[index], labels[index])


def fetch_split(split: Split) -> Fetch:
    """Return the `Fetch` of a split of real images."""
    return lambda index: (split.inputs(index), split.labels[index])


def is_partitioned(views: ViewRecipe | None) -> bool:
    """Return whether each of several processes fetches only its own part of a batch.

    This is not possible if `views` mixes images of the batch.
    """
    return views is not None and views.mix == "none"


@contextmanager
def single_image_errors(n: int, recipe: Recipe) -> Iterator[None]:
    """Replace torch's error for a batch that BatchNorm cannot normalise by one that names the batch size to change."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        b = recipe.batch_size
        sizes = [size for size in (*range(b - 1, 1, -1), b + 1) if n % size != 1]
        remedy = f"Use another batch size, e.g. batch_size={sizes[0]}" if n > 1 else "Use a larger set"
        raise ValueError(
            f"BatchNorm requires batches of at least 2 images in training, got a batch of 1: {n} training images, "
            f"batch_size={b}. {remedy} (for fresh networks, protocol.recipe.batch_size), or a network without BatchNorm"
        ) from error


def recipe_batches(
    fetch: Fetch, n: int, recipe: Recipe, streams: list[Stream], seed: int, flip: bool
) -> LabelledBatches:
    """Return the batches of the recipe, shuffled and augmented, with the labels that `fetch` returns."""
    order, draws, mixing = streams
    device = order.device.device
    if recipe.views is not None:
        views = Views(recipe.views, n, seed=seed, batch_size=recipe.batch_size, flip_allowed=flip)
        return partial(_viewed, fetch, views, device)
    augment = recipe_augment(recipe, flip)

    def epoch_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor, Target]]:
        for index in batches(n, recipe.batch_size, order, device):
            raw, y = fetch(index)
            x, target = apply_cutmix(augment.batch(raw, draws), y, recipe, mixing)
            yield raw, x, target

    return epoch_batches


def recipe_augment(recipe: Recipe, flip: bool) -> Augment | PerImageAugment:
    """Return the augmentation of a recipe; its op `flip` is used only if a `flip` preserves the class."""
    if recipe.augment_style == "per_image":
        return PerImageAugment(recipe.augment)
    return Augment(
        recipe.augment, flip_allowed=flip, style=recipe.augment_style, align_corners=recipe.align_corners
    )


def _viewed(
    fetch: Fetch, views: Views, device: torch.device, epoch: int
) -> Iterator[tuple[Tensor, Tensor, Target]]:
    # Each of several processes decodes only its own part of a batch, unless images are mixed within the batch.
    part = (distributed.rank(), distributed.world_size()) if is_partitioned(views.recipe) else (0, 1)
    for index, make_view in views.batches(epoch, device, part):
        raw, y = fetch(index)
        view = make_view(raw)
        yield raw, view.x, view.target(y)


def batches(n: int, size: int, order: Stream, device: torch.device) -> Iterator[Tensor]:
    """Yield the batches of indices of one shuffled epoch; data that fits in one batch is not shuffled."""
    if n <= size:
        yield torch.arange(n, device=device)
    else:
        yield from torch.randperm(n, generator=order.device, device=device).split(size)


def apply_cutmix(x: Tensor, y: Tensor, recipe: Recipe, mixing: Stream) -> tuple[Tensor, Target]:
    """Apply CutMix with probability `recipe.cutmix`. Return the inputs, and `(y, partner, keep)` if mixed, else `y`."""
    if recipe.cutmix and float(torch.rand((), generator=mixing.host)) < recipe.cutmix:
        x, partner, keep = cutmix(x, mixing.device, recipe.cutmix_beta, recipe.cutmix_box)
        return x, (y, partner, keep)
    return x, y
