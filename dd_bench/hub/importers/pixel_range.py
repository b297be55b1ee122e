"""Decide whether tensors are pixels, and which value is white.

Files store pixels in 0..255 or 0..1, but also in 0..16 (scikit-learn's digits) or 0..100. If the largest value is well
below 255 (or 1), the images can be dark, or can have another range. Their likelihoods under a model of the real images
decide, see `image_model`. A set of dark images fits 0..255 better than its own range.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.hub.importers.image_model import Gaussian, real_pixels, sample

NEAR = 0.97  # part of the range that a set must use; otherwise the range is tested
MARGIN = 0.05  # nats per value by which the set's own range must fit better for it to be refused
CONTRASTS = (
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
)  # of the deviations from the mean image; averages of real images have less


class Pixels(NamedTuple):
    """Images that are clearly pixels.

    Attributes:
        images: uint8, or float32 in [0, 1].
        text: dtype and range of the stored values.
        white: the stored value that is white, 255 or 1.
    """

    images: Tensor
    text: str
    white: int


def as_pixels(images: Tensor) -> Pixels | None:
    """Return images that are clearly pixels, in 0..255 or 0..1; None for others, e.g. for network inputs."""
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 255:
        return None
    if not images.is_floating_point():
        return Pixels(images.to(torch.uint8), f"{_dtype(images)} in {low:.0f}..{high:.0f}", 255)
    text = f"floats in {low:.3g}..{high:.3g}"
    if high <= 1:
        return Pixels(images.float(), text, 1)
    if high >= 64 or torch.equal(images, images.round()):
        return Pixels(images.float() / 255, f"{text}, divided by 255", 255)
    return None


def check_white(images: Tensor, found: Pixels, real: RealSet) -> None:
    """Check that `found.white` is white in `images`, the stored values.

    Raises:
        ValueError: the range up to the largest value fits the training images of `real` clearly better.
    """
    high = float(images.max())
    if not 0 < high < NEAR * found.white:
        return
    values, pixels = sample(images).float(), real_pixels(real)
    stored, own = (_likelihood(values, Gaussian.of(white * pixels)) for white in (found.white, high))
    if own > stored + MARGIN:
        raise ValueError(
            f"the images are {_dtype(images)} in {float(images.min()):.4g}..{high:.4g}, and the range 0..{high:.4g} "
            f"fits the images of {real.name} better than 0..{found.white} (log-likelihood per value {own:.2f} and "
            f"{stored:.2f}). State the values of black and white: --range 0,{high:.4g}, or --range 0,{found.white} "
            "for dark images"
        )


def _likelihood(images: Tensor, model: Gaussian) -> float:
    """Return the log-likelihood per value of images with the mean of the real ones, and any contrast up to theirs."""
    models = (replace(model, eigenvalues=contrast**2 * model.eigenvalues) for contrast in CONTRASTS)
    return max(model.likelihood(images, (1.0,)).value for model in models)


def rescaled(images: Tensor, low: float, high: float) -> Tensor:
    """Return pixels, if `low` is black and `high` is white: uint8 for integers with 0 and 255, else float32.

    Raises:
        ValueError: integers are outside the range. Floats of methods that do not clamp their images may be outside.
    """
    smallest, largest = float(images.min()), float(images.max())
    if not images.is_floating_point():
        if smallest < low or largest > high:
            raise ValueError(
                f"--range must contain all integers, got --range {low:g},{high:g} for values in "
                f"{smallest:g}..{largest:g}"
            )
        if (low, high) == (0, 255):
            return images.to(torch.uint8)
    return ((images.double() - low) / (high - low)).float()


def _dtype(images: Tensor) -> str:
    return "floats" if images.is_floating_point() else str(images.dtype).removeprefix("torch.")
