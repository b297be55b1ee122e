"""Uniform quantisation of images to a few bits per value, with float16 parameters for each group of values.

    step = (max - min) / (2^bits - 1)    code = round((x - min) / step)    x' = min + step code

`min` is rounded to float16, and `step` is rounded up and is at least the difference of `min` to the next float16. The
levels then cover all values of a group, the error is at most half a step, and the smallest value has the code 0 and the
largest 2^bits - 1 (unless all values are nearly equal). So quantising x' again gives the same codes and parameters.

A cell is the part of the images that `per` names: all images ("set"), one image, one channel of an image, or a patch of
`patch x patch` values of a channel (fewer at the right and lower edge, if the side is not a multiple). By default, each
cell has its own parameters. With `groups`, cells are clustered by their parameters, and each cluster has one pair.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from dd_bench.runtime.packed_bits import pack_bits, packed_size, unpack_bits

Per = Literal["set", "image", "channel", "patch"]
Clip = Literal["minmax", "mse"]
BITS = (1, 2, 3, 4, 6, 8)
_SHRINK = tuple(round(1 - 0.05 * i, 2) for i in range(20))
"""Factors of the range that `clip=mse` tries; 1 is first, so that a range without outliers is not changed."""
_SMALLEST_STEP = 2.0**-14
"""The smallest normal float16. Smaller ones have a lower relative precision."""


@dataclass(frozen=True)
class Quantiser:
    """How images are quantised.

    `per="patch"` with `groups` is the grouped quantisation of PTQDC, from secondary notes on the paper, which has no
    released code. Deviations from PTQDC:

    - No refinement: PTQDC optimises the images for 500 steps (2,000 on subsets of ImageNet) so that a network has the
      same features of the dequantised images as of the original ones.
    - No search over the number of groups: PTQDC takes the largest one that fits into the budget. Here it is given.
    - Codes are stored without entropy coding. `code_sizes` counts the bits with it, as a separate size.
    - The offset of a group is its minimum in float16, not an integer zero point. Minima and steps are divided by their
      standard deviations before they are clustered. Patches are 4 x 4 by default, not 5 x 5.

    DCQ is not implemented, except for the number of bits per value. It quantises whole datasets to palettes: 20
    clusters of images by shallow features, for each cluster a palette of 2^bits colours in LAB from the pixels that
    Grad-CAM++ marks, and palettes trained with straight-through gradients of an error of edges.

    Attributes:
        bits: bits per value, one of `BITS`.
        per: the part of the images that is a cell.
        clip: range of the levels of a cell. "minmax": all values. "mse": of 20 ranges, which shrink towards the mean,
            the one with the smallest squared error.
        patch: side of the patches in values, for per="patch".
        groups: number of pairs of parameters that the cells share; None for one pair per cell.
    """

    bits: int
    per: Per = "image"
    clip: Clip = "minmax"
    patch: int = 4
    groups: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if a value is not one that the class documents."""
        if type(self.bits) is not int or self.bits not in BITS:
            raise ValueError(
                f"bits must be one of {', '.join(map(str, BITS))}, got {self.bits!r}. Example: bits=4"
            )
        for name, kind, example in (("per", Per, "image"), ("clip", Clip, "mse")):
            if (value := getattr(self, name)) not in get_args(kind):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(kind))}, got {value!r}. Example: {name}={example}"
                )
        groups = 16 if self.groups is None else self.groups
        for name, value, default in (("patch", self.patch, 4), ("groups", groups, 16)):
            if type(value) is not int or not 1 <= value < 2**16:
                raise ValueError(
                    f"{name} must be an integer from 1 to 65535, got {value!r}. Example: {name}={default}"
                )

    @property
    def text(self) -> str:
        """A description for tables, e.g. `4 bits per image`."""
        cell = f"{self.patch}x{self.patch} patch" if self.per == "patch" else self.per
        shared = f" in {self.groups} groups" if self.groups else ""
        return f"{self.bits} bit{'s' * (self.bits > 1)} per value, range per {cell}{shared}" + (
            f", clip={self.clip}" if self.clip != "minmax" else ""
        )

    def cells(self, shape: torch.Size | tuple[int, ...]) -> Tensor:
        """Return the index of the cell of each value of images of a shape `(n, c, h, w)`, int64 of that shape."""
        n, c, h, w = shape
        if self.per == "set":
            return torch.zeros(shape, dtype=torch.int64)
        if self.per == "image":
            return torch.arange(n).view(n, 1, 1, 1).expand(*shape)
        channels = torch.arange(n * c).view(n, c, 1, 1)
        if self.per == "channel":
            return channels.expand(*shape)
        down, across = (math.ceil(side / self.patch) for side in (h, w))
        places = (torch.arange(h) // self.patch * across)[:, None] + torch.arange(w) // self.patch
        return channels * (down * across) + places

    def num_cells(self, shape: torch.Size | tuple[int, ...]) -> int:
        """Return the number of cells of images of a shape `(n, c, h, w)`."""
        n, c, h, w = shape
        patches = math.ceil(h / self.patch) * math.ceil(w / self.patch)
        return {"set": 1, "image": n, "channel": n * c, "patch": n * c * patches}[self.per]

    def config(self) -> dict[str, Any]:
        """Return the values that are needed to decode the codes."""
        return {
            "bits": self.bits,
            "per": self.per,
            **({"patch": self.patch} if self.per == "patch" else {}),
            **({"groups": self.groups} if self.groups else {}),
        }


class Codes(NamedTuple):
    """Quantised images.

    Attributes:
        codes: uint8 `(n, c, h, w)`, from 0 to 2^bits - 1.
        minimum: float16 `(g,)`: the value of code 0, for each group.
        step: float16 `(g,)`: difference of two levels, for each group.
        group: int64 `(cells,)`: the group of each cell; None if each cell is a group.
    """

    codes: Tensor
    minimum: Tensor
    step: Tensor
    group: Tensor | None


def quantise(images: Tensor, quantiser: Quantiser) -> Codes:
    """Quantise float images `(n, c, h, w)`.

    Raises:
        ValueError: a value cannot be represented in float16, or there are fewer cells than groups.
    """
    values, cells = images.double().flatten(), quantiser.cells(images.shape).flatten()
    if float(values.abs().max()) > torch.finfo(torch.float16).max / 2:
        raise ValueError(
            f"images must have values of at most 32,752, which is half of the range of float16, got "
            f"{float(values.abs().max()):,.0f}"
        )
    count, group = quantiser.num_cells(images.shape), None
    minimum, step = _fit(values, cells, count, quantiser)
    if quantiser.groups:
        if quantiser.groups > count:
            raise ValueError(
                f"groups must be at most the number of cells, {count:,}, got {quantiser.groups}. "
                f"Example: groups={min(16, count)}"
            )
        group = _cluster(minimum, step, quantiser.groups)
        cells, count = group[cells], quantiser.groups
        minimum, step = _fit(values, cells, count, quantiser)
    codes = _encode(values, minimum[cells], step[cells], quantiser.bits)
    return Codes(codes.to(torch.uint8).view(images.shape), minimum.half(), step.half(), group)


def dequantise(coded: Codes, quantiser: Quantiser) -> Tensor:
    """Return the images of codes, float32 `(n, c, h, w)`."""
    cells = quantiser.cells(coded.codes.shape)
    cells = cells if coded.group is None else coded.group[cells]
    minimum, step = coded.minimum.double()[cells], coded.step.double()[cells]
    return (minimum + step * coded.codes).float()


def round_images(images: Tensor, quantiser: Quantiser) -> Tensor:
    """Return float images `(n, c, h, w)` quantised with one range per image (`per="image"`), on their device."""
    values = images.double().flatten(1)
    minimum, step = _parameters(values.amin(1, keepdim=True), values.amax(1, keepdim=True), quantiser.bits)
    decoded = minimum + step * _encode(values, minimum, step, quantiser.bits)
    return decoded.to(images.dtype).view(images.shape)


def _encode(values: Tensor, minimum: Tensor, step: Tensor, bits: int) -> Tensor:
    return (values - minimum).div_(step).round_().clamp_(0, 2**bits - 1)


def _fit(values: Tensor, groups: Tensor, count: int, quantiser: Quantiser) -> tuple[Tensor, Tensor]:
    """Return `minimum` and `step` of each group as float64 `(count,)`, which float16 represents exactly."""
    low = torch.full((count,), math.inf, dtype=torch.float64).scatter_reduce(0, groups, values, "amin")
    high = torch.full((count,), -math.inf, dtype=torch.float64).scatter_reduce(0, groups, values, "amax")
    low, high = (torch.where(low <= high, x, 0.0) for x in (low, high))  # a group without values
    if quantiser.clip == "minmax":
        return _parameters(low, high, quantiser.bits)
    single, sizes = values.float(), torch.bincount(groups, minlength=count).clamp_min(1)
    mean = torch.zeros(count, dtype=torch.float64).index_add(0, groups, values) / sizes
    best = torch.full((count,), math.inf)
    found = torch.zeros(2, count, dtype=torch.float64)
    for factor in _SHRINK:
        ends = mean + factor * (low - mean), mean + factor * (high - mean)
        minimum, step = _parameters(*(ends if factor < 1 else (low, high)), quantiser.bits)
        at, size = minimum.float()[groups], step.float()[groups]
        decoded = _encode(single, at, size, quantiser.bits).mul_(size).add_(at)
        error = torch.zeros(count).index_add(0, groups, decoded.sub_(single).square_())
        found = torch.where(error < best, torch.stack([minimum, step]), found)
        best = torch.minimum(best, error)
    return found[0], found[1]


def _parameters(low: Tensor, high: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return the minimum and the step of levels that cover the ranges from `low` to `high`; see the module."""
    minimum = low.half()
    exact = (high - minimum.double()) / (2**bits - 1)
    step = exact.half()
    step = torch.where(step.double() < exact, _next(step), step)
    resolution = _next(minimum.abs()) - minimum.abs()
    return minimum.double(), torch.maximum(step, resolution).double().clamp_min(_SMALLEST_STEP)


def _next(values: Tensor) -> Tensor:
    """Return the next larger float16 of non-negative values. `torch.nextafter` does not support float16 on CUDA."""
    return (values.view(torch.int16) + 1).view(torch.float16)


def _cluster(minimum: Tensor, step: Tensor, groups: int) -> Tensor:
    """Return the cluster of each cell, by k-means of (minimum, step), each divided by its std; int64."""
    from sklearn.cluster import KMeans  # slow to import
    from sklearn.exceptions import ConvergenceWarning

    points = torch.stack([minimum, step], 1).numpy()
    points = points / np.maximum(points.std(0), 1e-12)
    with warnings.catch_warnings():
        # fewer different cells than groups are allowed
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(groups, n_init=1, random_state=0).fit(points).labels_
    return torch.from_numpy(found.astype(np.int64))


def pack(values: Tensor, bits: int) -> Tensor:
    """Return integers from 0 to 2^bits - 1 as uint8 `(packed_size(n, bits),)`, see `pack_bits`."""
    return torch.from_numpy(pack_bits(values.flatten().numpy(), bits))


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """Return `count` integers, int64 `(count,)`, from the result of `pack`.

    Raises:
        ValueError: `packed` is not uint8, does not have the length for `count` values, or its unused bits are not 0.
    """
    size = packed_size(count, bits)
    if packed.dtype != torch.uint8 or packed.shape != (size,):
        raise ValueError(
            f"{count:,} values of {bits} bits must be packed in uint8 ({size},), got {packed.dtype} "
            f"{tuple(packed.shape)}"
        )
    unused = 8 * size - count * bits
    if int(packed[-1]) & (2**unused - 1):
        raise ValueError("the unused bits of the last byte of packed values must be 0")
    return torch.from_numpy(unpack_bits(packed.numpy(), count, bits))
