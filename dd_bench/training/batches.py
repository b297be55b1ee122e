"""Fetch, shuffle, augment and mix labelled batches as a recipe defines, for one network or several at once.

A batch is computed in two parts. `Batches.draw` draws the random numbers of each step on the CPU, from the streams of
each network, and `Batches.make` computes the batch from them on the device, without waiting for the device. The numbers
are the same on every device.

The batch of r networks is one batch of r * b images, network after network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from dd_bench.data.dataset import Split
from dd_bench.data.inputs import Inputs
from dd_bench.runtime import distributed
from dd_bench.runtime.seeding import Stream, stream
from dd_bench.runtime.transfer import to_device
from dd_bench.training.augment import Augment, Draw, Implementation, MixDraw
from dd_bench.training.losses import Target
from dd_bench.training.per_image_augment import PerImageAugment, PerImageDraw
from dd_bench.training.recipe import Recipe
from dd_bench.training.views import View, ViewDraw, ViewRecipe, Views, mixture_of

Fetch = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps indices `(n,)` on the device to network inputs `(n, c, h, w)` and labels."""

LabelledBatch = tuple[Tensor, Tensor, Target]
"""Images before augmentation, network inputs, and their target."""

LabelledBatches = Callable[[int], Iterator[LabelledBatch]]
"""Maps an epoch (0-based) to its batches."""


@runtime_checkable
class Batches(Protocol):
    """The batches of a training of one or several networks.

    Attributes:
        streams: the random streams that a step advances, to save with the state of the training.
        state: other tensors that a step changes, to save with the state of the training.
    """

    @property
    def streams(self) -> Sequence[Stream]:
        """See above."""

    @property
    def state(self) -> Mapping[str, Tensor]:
        """See above."""

    def draw(self, epoch: int) -> Iterator[Any]:
        """Yield the random numbers of each step of an epoch (0-based): dataclasses of CPU tensors."""

    def make(self, draw: Any) -> LabelledBatch:
        """Compute a batch from its numbers, which are on the device."""


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
    fetch: Fetch,
    n: int,
    recipe: Recipe,
    seeds: Sequence[int],
    flip: bool,
    device: torch.device,
    fixed: bool = False,
) -> Batches:
    """Return the batches of the recipe, shuffled and augmented, with the labels that `fetch` returns.

    Args:
        fetch: maps indices to inputs and labels.
        n: number of training images.
        recipe: batch size, augmentation and mixing.
        seeds: the seed of each network.
        flip: whether a horizontal flip preserves the class.
        device: device of the training.
        fixed: if true, the kernels of `make` do not depend on what was drawn, as a CUDA graph requires. If false, only
            the drawn op is computed, which is faster on the CPU.
    """
    if recipe.views is None:
        return RecipeBatches(fetch, n, recipe, seeds, flip, device, fixed)
    views = [
        Views(recipe.views, n, seed=s, batch_size=recipe.batch_size, flip_allowed=flip, fixed=fixed)
        for s in seeds
    ]
    return ViewBatches(fetch, views, lambda view, y: view.target(y))


@dataclass(frozen=True)
class StepDraw:
    """The random numbers of a step of g networks.

    Attributes:
        index: indices of the images, `(g * b,)`.
        augment: the augmentation in groups, with one group for each network, if it is used.
        per_image: the augmentation of each image, if it is used.
        mix: how the images are mixed; None if they are not.
    """

    index: Tensor
    augment: Draw | None
    per_image: PerImageDraw | None
    mix: MixDraw | None

    @classmethod
    def join(cls, draws: Sequence[StepDraw]) -> StepDraw:
        """Return the draws of several networks as one."""
        augments = [d.augment for d in draws if d.augment is not None]
        per_image = [d.per_image for d in draws if d.per_image is not None]
        mixes = [d.mix for d in draws if d.mix is not None]
        return cls(
            torch.cat([d.index for d in draws]),
            Draw.stack(augments) if augments else None,
            PerImageDraw.stack(per_image) if per_image else None,
            MixDraw.join(mixes) if mixes else None,
        )


class RecipeBatches:
    """The batches of a recipe without views. Each network has its own order, augmentation and mixing.

    Attributes:
        streams: the random streams of all networks, to save with the state of the training.
    """

    state: Mapping[str, Tensor] = MappingProxyType({})

    def __init__(
        self,
        fetch: Fetch,
        n: int,
        recipe: Recipe,
        seeds: Sequence[int],
        flip: bool,
        device: torch.device,
        fixed: bool = False,
    ):
        """See `recipe_batches`."""
        self._fetch, self._n, self._recipe, self._fixed = fetch, n, recipe, fixed
        self._device, self._augment = device, recipe_augment(recipe, flip)
        self._networks = [
            [stream("cpu", seed, role) for role in ("order", "augment", "cutmix")] for seed in seeds
        ]
        self.streams = [part for network in self._networks for part in network]

    def draw(self, epoch: int) -> Iterator[StepDraw]:
        """See `Batches`."""
        per_network = [self._draw_network(*streams) for streams in self._networks]
        if len(per_network) == 1:
            yield from per_network[0]
        else:
            yield from (StepDraw.join(draws) for draws in zip(*per_network, strict=True))

    @cached_property
    def _image_shape(self) -> Sequence[int]:
        """Shape `(c, h, w)` of the images. The first use fetches one image."""
        index = to_device(torch.zeros(1, dtype=torch.int64), self._device)
        return self._fetch(index)[0].shape[1:]

    def _draw_network(self, order: Stream, augmentation: Stream, mixing: Stream) -> Iterator[StepDraw]:
        used = self._augment
        for index in batches(self._n, self._recipe.batch_size, order.host):
            b, augment, per_image, mix = len(index), None, None, None
            if isinstance(used, PerImageAugment):
                shape = self._image_shape if used.draws_pixels else ()
                per_image = used.draw(b, augmentation.host, shape) if used else None
            elif used:
                augment = used.draw(1, augmentation, per_image=b)
            if self._recipe.cutmix:
                if float(torch.rand((), generator=mixing.host)) < self._recipe.cutmix:
                    mix = MixDraw.draw(b, mixing.host, self._recipe.cutmix_beta)
                elif self._fixed or len(self._networks) > 1:
                    mix = MixDraw.none(b)
            yield StepDraw(index, augment, per_image, mix)

    def make(self, draw: StepDraw) -> LabelledBatch:
        """See `Batches`."""
        raw, y = self._fetch(draw.index)
        x, groups = raw, len(self._networks)
        kernels: Implementation | None = "masked" if self._fixed else None
        if isinstance(self._augment, PerImageAugment):
            if draw.per_image is not None:
                x = self._augment.apply(raw, draw.per_image, groups, kernels)
        elif draw.augment is not None:
            x = self._augment.apply(raw.unflatten(0, (groups, -1)), draw.augment, kernels).flatten(0, 1)
        if draw.mix is None:
            return raw, x, y
        size = (int(x.shape[2]), int(x.shape[3]))
        mixture = mixture_of(draw.mix, size, "cutmix", self._recipe.cutmix_box)
        return raw, mixture.images(x), (y, mixture.partner, mixture.keep)


class ViewBatches:
    """The batches of a recipe with views, or of labelled views. Each network has its own views."""

    streams: Sequence[Stream] = ()
    state: Mapping[str, Tensor] = MappingProxyType({})

    def __init__(self, fetch: Fetch, views: Sequence[Views], target: Callable[[View, Tensor], Target]):
        """Take the views of each network; `target` maps a view and its labels to the target of the loss."""
        self._fetch, self._views, self._target = fetch, views, target

    def draw(self, epoch: int) -> Iterator[ViewDraw]:
        """See `Batches`."""
        # Each of several processes decodes only its own part of a batch, unless images are mixed within the batch.
        partitioned = is_partitioned(self._views[0].recipe)
        part = (distributed.rank(), distributed.world_size()) if partitioned else (0, 1)
        per_network = [views.draws(epoch, part) for views in self._views]
        if len(per_network) == 1:
            yield from per_network[0]
        else:
            yield from (ViewDraw.join(draws) for draws in zip(*per_network, strict=True))

    def make(self, draw: ViewDraw) -> LabelledBatch:
        """See `Batches`."""
        raw, y = self._fetch(draw.index)
        view = self._views[0].view(draw, raw)
        return raw, view.x, self._target(view, y)


class ComputedBatches:
    """Batches that a function of the epoch draws and computes at once."""

    streams: Sequence[Stream] = ()
    state: Mapping[str, Tensor] = MappingProxyType({})

    def __init__(self, batches: LabelledBatches):
        """Take the function."""
        self._batches = batches

    def draw(self, epoch: int) -> Iterator[LabelledBatch]:
        """See `Batches`."""
        return self._batches(epoch)

    def make(self, draw: LabelledBatch) -> LabelledBatch:
        """See `Batches`."""
        return draw


def recipe_augment(recipe: Recipe, flip: bool) -> Augment | PerImageAugment:
    """Return the augmentation of a recipe; its op `flip` is used only if a `flip` preserves the class."""
    if recipe.augment_style == "per_image":
        return PerImageAugment(recipe.augment)
    return Augment(
        recipe.augment, flip_allowed=flip, style=recipe.augment_style, align_corners=recipe.align_corners
    )


def batches(n: int, size: int, order: torch.Generator) -> Iterator[Tensor]:
    """Yield the batches of indices of one shuffled epoch; data that fits in one batch is not shuffled."""
    if n <= size:
        yield torch.arange(n)
    else:
        yield from torch.randperm(n, generator=order).split(size)
