"""Find out whether the images of a released set are pixels, and if not, which preprocessing their authors have used.

uint8 values, floats in [0, 1] and integers in 0..255 are pixels. For network inputs, each known transform (normalise,
ZCA, none) is tested in two ways:

1. Range. If the inverse transform maps the smallest value to 0 and the largest to 1, the set was preprocessed in this
   way. This holds for real images, and for methods that clamp their images.
2. Likelihood. The set is modelled as g times real images plus white noise, because distillation from real images adds
   noise, and distillation from noise has to find the signal. Real images are Gaussian, with the mean of every pixel and
   the covariance of the values of 8x8 patches over all channels. The transform with the largest likelihood, maximised
   over g in [0, 1] and the variance of the noise, fits best. This compares means, standard deviations, and the
   correlations of pixels and channels at once. With much noise all transforms fit equally; such sets are accepted.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.preprocess import ZCA, Identity, Normalise, Preprocess, channel_statistics
from dd_bench.hub.importers.image_model import HEADER, Gaussian, Statistics
from dd_bench.runtime.seeding import generator

MAX_IMAGES, MAX_VALUES = 5000, 2**24  # of the sample of real images
MAX_ZCA = 4096  # largest c h w for which a whitening is fitted to test it; its SVD took 18 s for 3x32x32
MARGIN = 0.02  # nats per value by which another transform must fit better for a set to be refused
MAX_NOISE = 30.0  # largest accepted standard deviation of the noise, divided by that of real inputs
TOLERANCE = 2e-3  # rounding error of pixels in half precision
UNUSED = 0.02  # largest part of the range of pixels at either end that a set may leave unused


class Fit(NamedTuple):
    """How well one transform fits a set.

    Attributes:
        exact: whether the inverse transform maps the values to the range [0, 1], neither larger nor smaller.
        likelihood: log-likelihood per value in nats, without the constant.
        noise: standard deviation of the noise, divided by that of the transformed real images.
        expected: statistics of the transformed real images.
    """

    exact: bool
    likelihood: float
    noise: float
    expected: Statistics


def known_transforms(real: RealSet, pixels: Tensor) -> dict[str, Preprocess]:
    """Return the transforms to compare, by name: a value of `dataset.preprocess`, or `pixels` for no transform.

    Args:
        real: its own transform is one of them.
        pixels: training images, floats in [0, 1], to which the other transforms are fitted.
    """
    stored = (pixels * 255).round().to(torch.uint8)
    found: dict[str, Preprocess] = {"pixels": Identity(), real.preprocess.kind: real.preprocess}
    if Normalise.kind not in found:
        found[Normalise.kind] = Normalise(*channel_statistics(stored))
    if ZCA.kind not in found and pixels[0].numel() <= MAX_ZCA:
        found[ZCA.kind] = ZCA.fit(pixels)
    return found


def compare(images: Tensor, real: RealSet) -> dict[str, Fit]:
    """Return how well each known transform fits network inputs `(n, c, h, w)`, float32."""
    n = min(len(real.train), MAX_IMAGES, max(1, MAX_VALUES // images[0].numel()))
    index = torch.randperm(len(real.train), generator=generator("cpu", 0, "import"))[:n]
    pixels = real.train.pixels(index).cpu().float() / 255
    fits = {}
    for name, transform in known_transforms(real, pixels).items():
        inputs, inverse = transform(pixels), transform.inverse(images)
        low, high = float(inverse.min()), float(inverse.max())
        exact = -TOLERANCE <= low < UNUSED and 1 - UNUSED < high <= 1 + TOLERANCE
        likelihood, noise = Gaussian.of(inputs).likelihood(images)
        fits[name] = Fit(exact, likelihood, noise, Statistics.of(inputs))
    return fits


def check_inputs(images: Tensor, real: RealSet) -> str:
    """Compare network inputs with the training images of `real` and return one line about the transform that fits.

    Raises:
        ValueError: another transform clearly fits better than that of `real`, or none fits.
    """
    declared = real.preprocess.kind
    fits = compare(images, real)
    own = fits[declared]
    best = max(fits, key=lambda name: (fits[name].exact, fits[name].likelihood))
    line = ", ".join(f"{name} {fit.likelihood:.2f}" for name, fit in sorted(fits.items()))
    line = f"preprocessing {declared}: log-likelihood per value: {line}"
    if own.exact:
        return f"{line}; all pixels are in [0, 1]"
    if min(fit.noise for fit in fits.values()) > MAX_NOISE:
        reason, advice = "no known preprocessing fits the images", "Convert them to pixels in [0, 1] first"
    elif fits[best].exact or fits[best].likelihood > own.likelihood + MARGIN:
        reason = f"the images do not fit dataset.preprocess={declared}, but {best}"
        advice = "Add --pixels" if best == "pixels" else f"Use dataset.preprocess={best}"
    elif best != declared or fits[best].likelihood < _second(fits) + MARGIN:
        return f"{line}; no other fits clearly better or worse"
    else:
        return line
    table = [
        HEADER,
        Statistics.of(images).row("this set"),
        *(fit.expected.row(f"real, {name}") for name, fit in fits.items()),
    ]
    raise ValueError(
        "\n".join([reason, *table, line, f"{advice}, or add --force to import them as {declared}"])
    )


def _second(fits: dict[str, Fit]) -> float:
    return sorted(fit.likelihood for fit in fits.values())[-2]


def as_pixels(images: Tensor) -> tuple[Tensor, str] | None:
    """Return images that are clearly pixels as uint8 or as float32 in [0, 1], and their description; otherwise None."""
    low, high = float(images.min()), float(images.max())
    if not images.is_floating_point():
        if low < 0 or high > 255:
            return None
        return images.to(torch.uint8), f"{str(images.dtype).removeprefix('torch.')} in {low:.0f}..{high:.0f}"
    if low >= 0 and high <= 1:
        return images.float(), f"floats in {low:.3g}..{high:.3g}"
    if low >= 0 and 64 <= high <= 255:
        return images.float() / 255, f"floats in {low:.3g}..{high:.3g}, divided by 255"
    return None
