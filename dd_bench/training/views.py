"""Views: the augmented images of an epoch, as a function of seed, epoch and image.

The random numbers of image `i` in epoch `e` depend only on the seed, `e` and `i`, and not on the batch, on earlier
calls or on the device. Soft labels that were computed once can therefore be used again, and views are not stored,
because the seed reproduces them. The random numbers of a mixture depend on seed, epoch and batch number.

Images are network inputs. Shifted images are padded with zeros, which is the mean colour and not black.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor

from dd_bench.data.inputs import Inputs
from dd_bench.runtime.seeding import generator
from dd_bench.runtime.transfer import to_device
from dd_bench.training.augment import BoxKind, beta_sample, cutmix_box, gather_pixels, shift_index
from dd_bench.training.sampling import sample_bilinear

TRIES = 10  # of a random resized crop, as in torchvision
RATIO = (3 / 4, 4 / 3)
CPU = torch.device("cpu")


class ViewRecipe(BaseModel):
    """The augmentation of views. The ops are applied in the order of the attributes.

    Attributes:
        patches: number of strips per side, shuffled separately for rows and columns (RDED); 1: no shuffling.
        pad: largest shift in each direction, in pixels; 0: no shift.
        scale: range of the relative area of a random resized crop; null: no crop.
        flip: whether to mirror each image with probability one half, if mirroring preserves the class.
        mix: how the images of a batch are mixed in pairs: none, mixup or cutmix.
        alpha: both parameters of the Beta distribution from which the share of an image in its mixture is drawn.
        box: how the box of cutmix is rounded to pixels, exact or truncated; see `dd_bench.training.augment.cutmix_box`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    patches: int = Field(ge=1)
    pad: int = Field(ge=0)
    scale: tuple[float, float] | None
    flip: bool
    mix: Literal["none", "mixup", "cutmix"]
    alpha: float = Field(gt=0)
    box: BoxKind = "exact"

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit `box` at its default, because it was added later and the keys of older results stay valid."""
        values: dict[str, Any] = handler(self)
        if self.box == "exact":
            del values["box"]
        return values


@dataclass(frozen=True)
class Mixture:
    """How the images of a batch are mixed in pairs.

    Attributes:
        partner: index of the image that each image is mixed with, `(b,)`.
        keep: share of an image in its mixture, 0-d in [0, 1].
        box: mask of the pixels that CutMix replaces, `(h, w)`; None for mixup.
    """

    partner: Tensor
    keep: Tensor
    box: Tensor | None

    def to(self, device: torch.device) -> Mixture:
        """Return the mixture on `device`."""
        box = None if self.box is None else to_device(self.box, device)
        return Mixture(to_device(self.partner, device), to_device(self.keep, device), box)

    def images(self, x: Tensor) -> Tensor:
        """Mix images `(b, c, h, w)`."""
        other = x[self.partner]
        if self.box is not None:
            return torch.where(self.box, other, x)
        return self.keep * x + (1 - self.keep) * other

    def labels(self, y: Tensor) -> Tensor:
        """Mix labels `(b, k)`, logits or probabilities."""
        return self.keep * y + (1 - self.keep) * y[self.partner]


@dataclass(frozen=True)
class View:
    """An augmented batch: its epoch, the indices `(b,)` and inputs `(b, c, h, w)` of its images, and its mixture."""

    epoch: int
    index: Tensor
    x: Tensor
    mixture: Mixture | None

    def target(self, y: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Return the target of a loss for the labels `y (b,)`: `y` itself, or `(y, partner, keep)` for a mixture."""
        return y if self.mixture is None else (y, self.mixture.partner, self.mixture.keep)


class Views:
    """The views of `n` images of one shape for one seed."""

    def __init__(self, recipe: ViewRecipe, n: int, *, seed: int, batch_size: int, flip_allowed: bool):
        """Initialise from the recipe. If `flip_allowed` is false, `recipe.flip` is ignored."""
        self.recipe = without_flip(recipe, flip_allowed)
        self.n, self.seed, self.batch_size = n, seed, batch_size

    def epoch(self, images: Inputs, epoch: int) -> Iterator[View]:
        """Yield the batches of an epoch, which contain each of the images `(n, c, h, w)` once, in random order."""
        for index, make_view in self.batches(epoch, images.device):
            yield make_view(images[index])

    def batches(
        self, epoch: int, device: torch.device, part: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[Tensor, Callable[[Tensor], View]]]:
        """Yield the indices `(b,)` of each batch, and a function that maps its images `(b, c, h, w)` to a view.

        With `part=(i, m)`, only every m-th image of a batch is used, starting with image i. If the batch has no image
        i, only its first image is used. Recipes that mix images (MixUp, CutMix) do not support parts.
        """
        assert part[1] == 1 or self.recipe.mix == "none"
        order = torch.randperm(self.n, generator=generator(CPU, self.seed, "order", epoch))
        numbers = to_device(view_numbers(self.n, self.seed, epoch)[order], device).split(self.batch_size)
        for number, index in enumerate(to_device(order, device).split(self.batch_size)):
            rows = slice(part[0], None, part[1]) if part[0] < len(index) else slice(1)
            yield index[rows], partial(self._view, epoch, number, index[rows], numbers[number][rows])

    def _view(self, epoch: int, number: int, index: Tensor, u: Tensor, x: Tensor) -> View:
        x, mixture = augment_images(x, u, self.recipe), None
        if self.recipe.mix != "none":
            rng = generator(CPU, self.seed, "mix", epoch, number)
            size = (int(x.shape[2]), int(x.shape[3]))
            mixture = draw_mixture(len(index), size, self.recipe, rng).to(x.device)
            x = mixture.images(x)
        return View(epoch, index, x, mixture)


def without_flip(recipe: ViewRecipe, allowed: bool) -> ViewRecipe:
    """Return the recipe. If flips are not `allowed`, its `flip` is set to False."""
    return recipe if allowed else recipe.model_copy(update={"flip": False})


@lru_cache(maxsize=2)
def view_numbers(n: int, seed: int, epoch: int) -> Tensor:
    """Return the uniform random numbers of an epoch, `(n, 33)` on the CPU; row i belongs to image i."""
    return torch.rand(n, 33, generator=generator(CPU, seed, "views", epoch))


def augment_images(x: Tensor, u: Tensor, recipe: ViewRecipe) -> Tensor:
    """Augment images `(b, c, h, w)` with random numbers `u (b, 33)`, without mixing; differentiable in `x`."""
    h, w = x.shape[2:]
    if recipe.patches > 1:
        x = gather_pixels(x, strips(h, recipe.patches, u[:, 25:29]), strips(w, recipe.patches, u[:, 29:33]))
    if recipe.pad:
        x = gather_pixels(x, *(shift_index(side, recipe.pad, u[:, i]) for side, i in ((h, 1), (w, 2))))
    if recipe.scale is not None:
        x = crop(x, boxes((h, w), recipe.scale, u[:, 3:25]))
    if recipe.flip:
        x = torch.where((u[:, 0] < 0.5).view(-1, 1, 1, 1), x.flip(3), x)
    return x


def strips(size: int, count: int, u: Tensor) -> Tensor:
    """Return the source index of each row after `count` equal strips are shuffled, `(b, size)`.

    Raises:
        ValueError: `count` does not divide `size`, or is larger than the number of columns of `u`.
    """
    if size % count or count > u.shape[1]:
        raise ValueError(f"views.patches must divide {size} and be <= {u.shape[1]}, got {count}")
    order = u[:, :count].argsort(1)  # (b, count)
    rows = torch.arange(size, device=u.device).view(count, -1)  # (count, size / count)
    return rows[order].flatten(1)


def boxes(
    size: tuple[int, int], scale: tuple[float, float], u: Tensor, ratio: tuple[float, float] = RATIO
) -> Tensor:
    """Return one crop box per image, int64 `(b, 4)`: top, left, height, width.

    As in torchvision's RandomResizedCrop, the area is uniform in `scale` and the aspect ratio log-uniform in `ratio`.
    If none of ten sampled boxes fits into the image, the box is centred and is the largest one whose aspect ratio is
    within `ratio`. The random numbers `u (b, 22)` are ten areas, ten ratios, and two coordinates of the corner.
    """
    h, w = size
    area = h * w * (scale[0] + (scale[1] - scale[0]) * u[:, :TRIES])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = (low + (high - low) * u[:, TRIES : 2 * TRIES]).exp()
    heights, widths = (area / aspect).sqrt().round().long(), (area * aspect).sqrt().round().long()  # (b, 10)
    fits = (heights > 0) & (heights <= h) & (widths > 0) & (widths <= w)
    whole_h, whole_w = (h, round(h * ratio[1])) if w / h > ratio[1] else (h, w)
    if w / h < ratio[0]:
        whole_h, whole_w = round(w / ratio[0]), w
    first = fits.int().argmax(1, keepdim=True)
    found = fits.any(1)
    height = torch.where(found, heights.gather(1, first)[:, 0], whole_h)
    width = torch.where(found, widths.gather(1, first)[:, 0], whole_w)
    corner = u[:, 2 * TRIES :]
    top, left = ((corner[:, i] * (room + 1)).floor().long() for i, room in ((0, h - height), (1, w - width)))
    top, left = torch.minimum(top, h - height), torch.minimum(left, w - width)
    top = torch.where(found, top, (h - whole_h) // 2)
    left = torch.where(found, left, (w - whole_w) // 2)
    return torch.stack([top, left, height, width], 1)


def crop(x: Tensor, box: Tensor) -> Tensor:
    """Crop each image `(b, c, h, w)` to its box `(b, 4)` and resize the crop bilinearly to the size of the image."""
    h, w = x.shape[2:]
    rows = _positions(box[:, 0], box[:, 2], h)
    cols = _positions(box[:, 1], box[:, 3], w)
    shape = (len(x), h, w)
    grid = torch.stack([cols[:, None, :].expand(shape), rows[:, :, None].expand(shape)], 3)
    return sample_bilinear(x, grid.to(x.dtype), padding="border", align_corners=False)


def _positions(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Return sampling positions in [-1, 1] that resize a range to `size` pixels, `(b, size)`.

    The positions are clamped to the centres of the outermost pixels of the range.
    """
    position = start[:, None] + (torch.arange(size, device=start.device) + 0.5) * (length[:, None] / size)
    position = torch.maximum(position, start[:, None] + 0.5)
    position = torch.minimum(position, start[:, None] + length[:, None] - 0.5)
    return 2 * position / size - 1


def draw_mixture(b: int, size: tuple[int, int], recipe: ViewRecipe, rng: torch.Generator) -> Mixture:
    """Draw the mixture of a batch of `b` images: a random partner for each image, and one share and box for all."""
    partner = torch.randperm(b, generator=rng)
    keep = beta_sample(recipe.alpha, rng)
    if recipe.mix == "mixup":
        return Mixture(partner, keep, None)
    box = cutmix_box(size, keep, torch.rand(2, generator=rng), recipe.box)
    return Mixture(partner, 1 - box.float().mean(), box)
