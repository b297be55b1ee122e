"""Views: the augmented images of an epoch, as a function of seed, epoch and image.

The random numbers of image `i` in epoch `e` depend only on the seed, `e` and `i`, and not on the batch, on earlier
calls or on the device. Soft labels that were computed once can therefore be used again, and views are not stored,
because the seed reproduces them. The random numbers of a mixture depend on seed, epoch and batch number.

Images are network inputs. Shifted images are padded with zeros, which is the mean colour and not black.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor

from dd_bench.data.inputs import Inputs
from dd_bench.runtime.fixed_memory import send
from dd_bench.runtime.seeding import generator
from dd_bench.training.augment import (
    Augment,
    BoxKind,
    Draw,
    Implementation,
    MixDraw,
    cutmix_box,
    gather_pixels,
    shift_index,
)
from dd_bench.training.cells import cell_boxes, cell_numbers, op_numbers
from dd_bench.training.colour import ColourRecipe, change_colours, colour_numbers
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
        colour: random changes of colours, before images are mixed; null: none.
        tile: cells per side of a mosaic. Before all other ops, an image is replaced by one of its cells, enlarged, or
            left whole with probability 1 / tile^2; 1: always whole. It divides the sides of the image.
        dsa: ops joined by underscores, see `dd_bench.training.augment`, one of which is drawn for each image and
            applied after all other ops but mixing; none: no op.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    patches: int = Field(ge=1)
    pad: int = Field(ge=0)
    scale: tuple[float, float] | None
    flip: bool
    mix: Literal["none", "mixup", "cutmix"]
    alpha: float = Field(gt=0)
    box: BoxKind = "exact"
    colour: ColourRecipe | None = None
    tile: int = Field(default=1, ge=1)
    dsa: str = "none"

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit keys that were added later at their defaults, so that the keys of older results stay valid."""
        values: dict[str, Any] = handler(self)
        if self.box == "exact":
            del values["box"]
        if self.colour is None:
            del values["colour"]
        if self.tile == 1:
            del values["tile"]
        if self.dsa == "none":
            del values["dsa"]
        return values


@dataclass(frozen=True)
class Mixture:
    """How the images of a batch are mixed in pairs, or those of g batches of b images, one for each network.

    Attributes:
        partner: index of the image that each image is mixed with, `(g * b,)`.
        keep: share of an image in its mixture, in [0, 1], `()` or `(g,)`.
        box: mask of the pixels that CutMix replaces, `(h, w)` or `(g, h, w)`; None for mixup.
    """

    partner: Tensor
    keep: Tensor
    box: Tensor | None

    def images(self, x: Tensor) -> Tensor:
        """Mix images `(g * b, c, h, w)`."""
        if self.box is None:
            return self.labels(x)
        box = self.box if self.box.ndim == 2 else self._by_image(self.box)[:, None]
        return torch.where(box, x[self.partner], x)

    def labels(self, y: Tensor) -> Tensor:
        """Mix labels `(g * b, k)`, logits or probabilities."""
        keep = self.keep if self.keep.ndim == 0 else self._by_image(self.keep).view(-1, *[1] * (y.ndim - 1))
        return keep * y + (1 - keep) * y[self.partner]

    def _by_image(self, values: Tensor) -> Tensor:
        """Repeat the values of each network `(g, ...)` for each of its images, `(g * b, ...)`."""
        repeats = len(self.partner) // len(values)
        return values[:, None].expand(-1, repeats, *values.shape[1:]).flatten(0, 1)


@dataclass(frozen=True)
class TemperatureDraw:
    """The temperature of soft labels in a step, if it changes during the training.

    Attributes:
        teacher: temperature of the teachers, 0-d.
        calibrate: any tensor if the student's temperature is calibrated after the step, otherwise None. It is not a
            bool, because a CUDA graph repeats the same kernels for all draws with tensors of the same shapes.
    """

    teacher: Tensor
    calibrate: Tensor | None


@dataclass(frozen=True)
class ViewDraw:
    """The random numbers of a batch of views, or of the batches of g networks.

    Attributes:
        groups: number of networks g.
        index: indices of the images, `(g * b,)`.
        u: uniform numbers of each image, `(g * b, 33)`.
        mix: how the images are mixed; None if they are not.
        temperature: see `View`.
        colour: the numbers of `colour_numbers` of each image, `(g * b, 6)`; None if colours do not change.
        cells: the numbers of `cell_numbers` of each image, `(g * b, 2)`; None if images are always whole.
        ops: the numbers of `op_numbers` of each image, `(g * b, 4)`; None without DSA's ops.
    """

    groups: int
    index: Tensor
    u: Tensor
    mix: MixDraw | None
    temperature: TemperatureDraw | None = None
    colour: Tensor | None = None
    cells: Tensor | None = None
    ops: Tensor | None = None

    @classmethod
    def join(cls, draws: Sequence[ViewDraw]) -> ViewDraw:
        """Return the draws of the batches of several networks, as one batch."""
        mixes = [d.mix for d in draws if d.mix is not None]
        colour, cells, ops = (
            torch.cat(found) if (found := [v for d in draws if (v := getattr(d, name)) is not None]) else None
            for name in ("colour", "cells", "ops")
        )
        return cls(
            len(draws),
            torch.cat([d.index for d in draws]),
            torch.cat([d.u for d in draws]),
            MixDraw.join(mixes) if mixes else None,
            colour=colour,
            cells=cells,
            ops=ops,
        )


@dataclass(frozen=True)
class View:
    """An augmented batch: the indices `(n,)` and inputs `(n, c, h, w)` of its images, and its mixture.

    It is the batch of one network, or the joined batches of `groups` networks. If labels change during the training,
    `temperature` is that of the soft labels, or None for class labels.
    """

    index: Tensor
    x: Tensor
    mixture: Mixture | None
    groups: int = 1
    temperature: TemperatureDraw | None = None

    def target(self, y: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Return the target of a loss for the labels `y (b,)`: `y` itself, or `(y, partner, keep)` for a mixture."""
        return y if self.mixture is None else (y, self.mixture.partner, self.mixture.keep)


class Views:
    """The views of `n` images of one shape for one seed."""

    def __init__(
        self,
        recipe: ViewRecipe,
        n: int,
        *,
        seed: int,
        batch_size: int,
        flip_allowed: bool,
        fixed: bool = False,
    ):
        """Initialise from the recipe.

        Args:
            recipe: the augmentation.
            n: number of images.
            seed: seed of all random numbers.
            batch_size: number of images of a batch.
            flip_allowed: whether a flip preserves the class; if not, `recipe.flip` is ignored.
            fixed: whether the kernels of `view` must not depend on what was drawn, also on a CPU; see `recipe_batches`.
        """
        self.recipe = without_flip(recipe, flip_allowed)
        self.n, self.seed, self.batch_size = n, seed, batch_size
        self._dsa = Augment(recipe.dsa, flip_allowed=flip_allowed)
        self._kernels: Implementation | None = "masked" if fixed else None

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches of an epoch."""
        return -(-self.n // self.batch_size)

    def epoch(self, images: Inputs, epoch: int) -> Iterator[View]:
        """Yield the batches of an epoch, which contain each of the images `(n, c, h, w)` once, in random order."""
        for draw in self.draws(epoch):
            draw = send(draw, images.device)
            yield self.view(draw, images[draw.index])

    def draws(self, epoch: int, part: tuple[int, int] = (0, 1)) -> Iterator[ViewDraw]:
        """Yield the random numbers of the batches of an epoch, on the CPU.

        With `part=(i, m)`, only every m-th image of a batch is used, starting with image i. If the batch has no image
        i, only its first image is used. Recipes that mix images (MixUp, CutMix) do not support parts.
        """
        assert part[1] == 1 or self.recipe.mix == "none"
        order = torch.randperm(self.n, generator=generator(CPU, self.seed, "order", epoch))
        numbers = view_numbers(self.n, self.seed, epoch)[order].split(self.batch_size)
        for number, index in enumerate(order.split(self.batch_size)):
            rows = slice(part[0], None, part[1]) if part[0] < len(index) else slice(1)
            mix = colour = cells = ops = None
            if self.recipe.tile > 1:
                cells = cell_numbers(self.n, self.seed, epoch)[index][rows]
            if self._dsa:
                ops = op_numbers(self.n, self.seed, epoch)[index][rows]
            if self.recipe.colour is not None:
                colour = colour_numbers(self.n, self.seed, epoch)[index][rows]
            if self.recipe.mix != "none":
                rng = generator(CPU, self.seed, "mix", epoch, number)
                mix = MixDraw.draw(len(index), rng, self.recipe.alpha)
            yield ViewDraw(1, index[rows], numbers[number][rows], mix, None, colour, cells, ops)

    def view(self, draw: ViewDraw, x: Tensor) -> View:
        """Return the views of `x (n, c, h, w)`, the images at `draw.index`. `draw` and `x` are on one device."""
        if draw.cells is not None:
            x = crop(x, cell_boxes((int(x.shape[2]), int(x.shape[3])), self.recipe.tile, draw.cells))
        x, mixture = augment_images(x, draw.u, self.recipe), None
        if self.recipe.colour is not None and draw.colour is not None:
            x = change_colours(x, draw.colour, self.recipe.colour)
        if draw.ops is not None:
            x = self._one_op_each(x, draw.ops)
        if draw.mix is not None and self.recipe.mix != "none":
            size = (int(x.shape[2]), int(x.shape[3]))
            mixture = mixture_of(draw.mix, size, self.recipe.mix, self.recipe.box)
            x = mixture.images(x)
        return View(draw.index, x, mixture, draw.groups, draw.temperature)

    def _one_op_each(self, x: Tensor, u: Tensor) -> Tensor:
        """Apply one of DSA's ops to each image `(n, c, h, w)`, drawn by the numbers `u (n, 4)`."""
        count = len(self._dsa.choices)
        op = (u[:, 0] * count).long().clamp_max(count - 1)
        return self._dsa.apply(x[:, None], Draw(op, u[:, 1:], {}), self._kernels)[:, 0]


def without_flip(recipe: ViewRecipe, allowed: bool) -> ViewRecipe:
    """Return the recipe. If flips are not `allowed`, its `flip` is set to False."""
    return recipe if allowed else recipe.model_copy(update={"flip": False})


@lru_cache(maxsize=2)
def view_numbers(n: int, seed: int, epoch: int) -> Tensor:
    """Return the uniform random numbers of an epoch, `(n, 33)` on the CPU; row i belongs to image i."""
    return torch.rand(n, 33, generator=generator(CPU, seed, "views", epoch))


def augment_images(x: Tensor, u: Tensor, recipe: ViewRecipe) -> Tensor:
    """Augment images `(b, c, h, w)` with random numbers `u (b, 33)`; differentiable in `x`.

    Colours are not changed, and images are not mixed.
    """
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
    assert recipe.mix != "none"
    return mixture_of(MixDraw.draw(b, rng, recipe.alpha), size, recipe.mix, recipe.box)


def mixture_of(
    draw: MixDraw, size: tuple[int, int], mix: Literal["mixup", "cutmix"], kind: BoxKind
) -> Mixture:
    """Return the mixture of images of one size from its random numbers, on their device."""
    if mix == "mixup":
        return Mixture(draw.partner, draw.keep, None)
    box = cutmix_box(size, draw.keep, draw.centre, kind)
    return Mixture(draw.partner, 1 - box.float().mean((-2, -1)), box)
