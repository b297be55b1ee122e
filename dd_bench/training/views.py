"""Views: the augmented images of an epoch, as a function of seed, epoch and image.

The random numbers of image `i` in epoch `e` depend only on the seed, `e` and `i`: not on its batch, on earlier calls,
or on the device. So soft labels that were computed once can be replayed from the seed, and views are never stored. A
mixture belongs to a batch, and depends on seed, epoch and batch number.

Images are network inputs: pixels outside of a crop are the mean colour, not black.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dd_bench.data.inputs import Inputs
from dd_bench.runtime.seeding import generator
from dd_bench.training.augment import beta_sample, gathered, shifted

TRIES = 10  # of a random resized crop, as torchvision has it
RATIO = (3 / 4, 4 / 3)
CPU = torch.device("cpu")


class ViewRecipe(BaseModel):
    """The augmentation of views, in this order.

    Attributes:
        patches: number of strips a side, shuffled separately for rows and columns (RDED); 1: none.
        pad: largest integer shift each way, in pixels; 0: none.
        scale: range of the area of a random resized crop; null: none.
        flip: mirror half of the images, if that preserves the class.
        mix: how two images of a batch are mixed: none, mixup, cutmix.
        alpha: both parameters of the Beta distribution of an image's own share.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    patches: int = Field(ge=1)
    pad: int = Field(ge=0)
    scale: tuple[float, float] | None
    flip: bool
    mix: Literal["none", "mixup", "cutmix"]
    alpha: float = Field(gt=0)


@dataclass(frozen=True)
class Mixture:
    """How the images of a batch are mixed in pairs: `partner (b,)`, `keep` 0-d, and CutMix's box `(h, w)`."""

    partner: Tensor
    keep: Tensor
    box: Tensor | None

    def to(self, device: torch.device) -> Mixture:
        """Return it on `device`."""
        box = None if self.box is None else to_device(self.box, device)
        return Mixture(to_device(self.partner, device), to_device(self.keep, device), box)

    def images(self, x: Tensor) -> Tensor:
        """Return the mixed images of `(b, c, h, w)`."""
        other = x[self.partner]
        if self.box is not None:
            return torch.where(self.box, other, x)
        return self.keep * x + (1 - self.keep) * other

    def labels(self, y: Tensor) -> Tensor:
        """Return the mixed labels of `(b, k)`, logits or probabilities."""
        return self.keep * y + (1 - self.keep) * y[self.partner]


@dataclass(frozen=True)
class View:
    """An augmented batch: the indices of its images, the images `(b, c, h, w)`, and how they are mixed, if they are."""

    epoch: int
    index: Tensor
    x: Tensor
    mixture: Mixture | None

    def target(self, y: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Return the labels `y (b,)` as a loss takes them: with the partner and the own share of a mixture."""
        return y if self.mixture is None else (y, self.mixture.partner, self.mixture.keep)


class Views:
    """The views of `n` images of one shape under one seed."""

    def __init__(self, recipe: ViewRecipe, n: int, *, seed: int, batch_size: int, flip_allowed: bool):
        """Takes the recipe; `flip` is dropped where it changes the class."""
        self.recipe = without_flip(recipe, flip_allowed)
        self.n, self.seed, self.batch_size = n, seed, batch_size

    def epoch(self, images: Inputs, epoch: int) -> Iterator[View]:
        """Yield the batches of an epoch: each of the images `(n, c, h, w)` once, in a shuffled order."""
        for index, show_batch in self.batches(epoch, images.device):
            yield show_batch(images[index])

    def batches(
        self, epoch: int, device: torch.device, part: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[Tensor, Callable[[Tensor], View]]]:
        """Yield the indices `(b,)` of each batch, and a function from its images `(b, c, h, w)` to their view.

        With `part` (i, m) only every m-th image from the i-th, or the first if there is none; mixed images need whole
        batches.
        """
        assert part[1] == 1 or self.recipe.mix == "none"
        order = torch.randperm(self.n, generator=generator(CPU, self.seed, "order", epoch))
        numbers = to_device(view_numbers(self.n, self.seed, epoch)[order], device).split(self.batch_size)
        for number, index in enumerate(to_device(order, device).split(self.batch_size)):
            rows = slice(part[0], None, part[1]) if part[0] < len(index) else slice(1)
            yield index[rows], partial(self._view, epoch, number, index[rows], numbers[number][rows])

    def _view(self, epoch: int, number: int, index: Tensor, u: Tensor, x: Tensor) -> View:
        x, mixture = show(x, u, self.recipe), None
        if self.recipe.mix != "none":
            rng = generator(CPU, self.seed, "mix", epoch, number)
            size = (int(x.shape[2]), int(x.shape[3]))
            mixture = draw_mixture(len(index), size, self.recipe, rng).to(x.device)
            x = mixture.images(x)
        return View(epoch, index, x, mixture)


def without_flip(recipe: ViewRecipe, allowed: bool) -> ViewRecipe:
    """Return the recipe, without its flip if that changes the class."""
    return recipe if allowed else recipe.model_copy(update={"flip": False})


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on `device`, without waiting for the device."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


@lru_cache(maxsize=2)
def view_numbers(n: int, seed: int, epoch: int) -> Tensor:
    """Return the uniform random numbers of an epoch, `(n, 33)` on the CPU; row i belongs to image i."""
    return torch.rand(n, 33, generator=generator(CPU, seed, "views", epoch))


def show(x: Tensor, u: Tensor, recipe: ViewRecipe) -> Tensor:
    """Return the images `(b, c, h, w)` augmented by the numbers `u (b, 33)`, not mixed; differentiable in `x`."""
    h, w = x.shape[2:]
    if recipe.patches > 1:
        x = gathered(x, strips(h, recipe.patches, u[:, 25:29]), strips(w, recipe.patches, u[:, 29:33]))
    if recipe.pad:
        x = gathered(x, *(shifted(side, recipe.pad, u[:, i]) for side, i in ((h, 1), (w, 2))))
    if recipe.scale is not None:
        x = crop(x, boxes((h, w), recipe.scale, u[:, 3:25]))
    if recipe.flip:
        x = torch.where((u[:, 0] < 0.5).view(-1, 1, 1, 1), x.flip(3), x)
    return x


def strips(size: int, count: int, u: Tensor) -> Tensor:
    """Return the source row of each row after `count` equal strips were shuffled, `(b, size)`.

    Raises:
        ValueError: the strips are not equal, or there are more than four, the most that `u` has numbers for.
    """
    if size % count or count > u.shape[1]:
        raise ValueError(f"{count} strips of {size} pixels: wanted up to {u.shape[1]} of equal width")
    order = u[:, :count].argsort(1)  # (b, count)
    rows = torch.arange(size, device=u.device).view(count, -1)  # (count, size / count)
    return rows[order].flatten(1)


def boxes(
    size: tuple[int, int], scale: tuple[float, float], u: Tensor, ratio: tuple[float, float] = RATIO
) -> Tensor:
    """Return one box an image, int64 `(b, 4)`: top, left, height, width.

    The search of torchvision's RandomResizedCrop: area uniform in `scale`, the aspect ratio log-uniform in `ratio`,
    ten tries, then the largest central box. Its numbers are `u (b, 22)`: ten areas, ten ratios, the corner.
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
    """Cut a box `(b, 4)` out of each image `(b, c, h, w)` and enlarges it bilinearly to the image's size."""
    h, w = x.shape[2:]
    rows = _positions(box[:, 0], box[:, 2], h)
    cols = _positions(box[:, 1], box[:, 3], w)
    shape = (len(x), h, w)
    grid = torch.stack([cols[:, None, :].expand(shape), rows[:, :, None].expand(shape)], 3)
    return F.grid_sample(x, grid.to(x.dtype), mode="bilinear", padding_mode="border", align_corners=False)


def _positions(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Return the positions of the pixels of an enlarged range in [-1, 1], `(b, size)`, clamped to its outer pixels."""
    at = start[:, None] + (torch.arange(size, device=start.device) + 0.5) * (length[:, None] / size)
    at = torch.maximum(at, start[:, None] + 0.5)
    at = torch.minimum(at, start[:, None] + length[:, None] - 0.5)
    return 2 * at / size - 1


def draw_mixture(b: int, size: tuple[int, int], recipe: ViewRecipe, rng: torch.Generator) -> Mixture:
    """Draw how the `b` images of a batch are mixed: random partners, one share and one box for all."""
    h, w = size
    partner = torch.randperm(b, generator=rng)
    keep = beta_sample(recipe.alpha, rng)
    if recipe.mix == "mixup":
        return Mixture(partner, keep, None)
    centre = torch.rand(2, generator=rng)
    half = (1 - keep).sqrt() / 2
    rows, cols = (torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w
    box = ((rows - centre[0]).abs() < half)[:, None] & ((cols - centre[1]).abs() < half)[None]
    return Mixture(partner, 1 - box.float().mean(), box)
