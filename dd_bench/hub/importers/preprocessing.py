"""Find out which preprocessing the authors of a released set have used, if its images are network inputs.

Each known transform (`transforms`) is tested in two ways:

1. Range. If the inverse transform maps the smallest value to 0 and the largest to 1, the set was preprocessed in this
   way. This holds for real images, and for methods that clamp their images. Clamped images have many values that are
   exactly black or white, so a set in which such values are not mapped to 0 and 1 had another transform.
2. Likelihood. The set is modelled as g times real inputs plus white noise, because distillation from real images adds
   noise and contrast, and distillation from noise has to find the signal. Real images are Gaussian, with the mean of
   every pixel and the covariance of the values of 8x8 patches over all channels. The transform with the largest
   likelihood, maximised over g and the variance of the noise, fits best. This compares means, and the correlations of
   pixels and channels. With much noise all transforms fit equally; such sets are accepted.

The thresholds were chosen on the committed sets of digits and Fashion-MNIST of every second method in alphabetical
order (ast, datadam, dc, ..., tesla), where no other transform fits more than 0.123 nats better than the true one, and
checked, not blindly, on the sets of the other methods (0.096).
Two normalisations with the same mean cannot be distinguished if
images are not clamped, because many methods increase the contrast.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.preprocess import ZCA, Normalise
from dd_bench.hub.importers.image_model import HEADER, Gaussian, Likelihood, Statistics, real_pixels, sample
from dd_bench.hub.importers.transforms import PIXELS, advice, known_transforms

KINDS = (PIXELS, Normalise.kind, ZCA.kind)
MARGIN = 0.02  # nats per value by which another of KINDS must fit better for a set to be refused
MARGIN_OTHER = 0.15  # for other transforms
MAX_NOISE = 30.0  # largest accepted standard deviation of the noise, divided by that of real inputs
MAX_RATIO = 1.5  # largest ratio of noise and gain at which a transform is said to fit
NOISELESS = 0.1  # noise below which a set consists of real images, whose contrast is known
TOLERANCE = 2e-3  # rounding error of pixels in half precision
UNUSED = 0.02  # largest part of the range of pixels at either end that a set may leave unused
SHORT = 0.05  # part of the range that a set of another transform leaves unused
SATURATED = 0.01  # smallest part of the values of clamped images that are exactly black, or exactly white


class Fit(NamedTuple):
    """How well one transform fits a set.

    Attributes:
        exact: whether the inverse transform maps the values to the range [0, 1], neither larger nor smaller.
        covers: whether it maps them to a range that contains [0, 1], up to `SHORT`.
        model: the fit of the model of real inputs.
        expected: statistics of the transformed real images.
        advice: the option with which such sets are imported, or None.
    """

    exact: bool
    covers: bool
    model: Likelihood
    expected: Statistics
    advice: str | None

    @property
    def plausible(self) -> bool:
        """Whether the set shows real images under this transform, not only noise."""
        _, noise, gain = self.model
        if noise < NOISELESS and not 0.7 <= gain <= 1.4:  # real images, but with another contrast
            return self.exact
        return self.exact or (gain > 0 and noise <= MAX_RATIO * max(1, gain))


def compare(images: Tensor, real: RealSet) -> dict[str, Fit]:
    """Return how well each known transform fits network inputs `(n, c, h, w)`, float32."""
    pixels, drawn = real_pixels(real), sample(images)
    fits = {}
    for name, transform in known_transforms(real, pixels).items():
        inputs, inverse = transform(pixels), transform.inverse(images)
        low, high = float(inverse.min()), float(inverse.max())
        exact = -TOLERANCE <= low < UNUSED and 1 - UNUSED < high <= 1 + TOLERANCE
        covers = low <= SHORT and high >= 1 - SHORT
        model = Gaussian.of(inputs).likelihood(drawn)
        fits[name] = Fit(exact, covers, model, Statistics.of(inputs), advice(name, transform))
    return fits


def check_inputs(images: Tensor, real: RealSet) -> str:
    """Compare network inputs with the training images of `real` and return one line about the transform that fits.

    Raises:
        ValueError: another transform clearly fits better than that of `real`, or none fits.
    """
    declared = real.preprocess.kind
    fits = compare(images, real)
    own = fits[declared]
    better = [name for name in fits if _is_better(name, fits[name], own)]
    best = max(better or fits, key=lambda name: (fits[name].exact, fits[name].model.value))
    line = ", ".join(f"{name} {fit.model.value:.2f}" for name, fit in sorted(fits.items()))
    line = f"preprocessing {declared}: log-likelihood per value: {line}"
    convert = "Convert them to pixels in [0, 1] first"
    if own.exact and not better:
        return f"{line}; all pixels are in [0, 1]"
    known = bool(better) and (fits[best].exact or best in KINDS)
    if not known and (saturated := _saturated(images, real)):
        low, high = saturated
        reason = (
            f"many values are exactly {low:g} or {high:g}, which dataset.preprocess={declared} maps to other "
        )
        reason += "values than black and white"
        cure = f"If {low:g} is black and {high:g} is white, add --range {low:g},{high:g}"
    elif min(fit.model.noise for fit in fits.values()) > MAX_NOISE:
        reason, cure = "no known preprocessing fits the images", convert
    elif better and fits[best].plausible:
        reason, cure = (
            f"the images do not fit dataset.preprocess={declared}, but {best}",
            fits[best].advice or convert,
        )
    elif better:
        reason = f"no known preprocessing fits the images, and {best} fits better than {declared}"
        cure = f"{convert}, or state their scale with --range LOW,HIGH or with --mean and --std"
    elif best != declared or own.model.value < _second(fits) + MARGIN:
        return f"{line}; no other fits clearly better or worse"
    else:
        return line
    rows = [name for name in fits if name in (*KINDS, best)]
    table = [
        HEADER,
        Statistics.of(images).row("this set"),
        *(fits[name].expected.row(f"real, {name}") for name in rows),
    ]
    raise ValueError(
        "\n".join([reason, *table, line, f"{cure}, or add --force to import them as {declared}"])
    )


def _is_better(name: str, fit: Fit, own: Fit) -> bool:
    """Return whether another transform clearly fits better than the declared one."""
    if fit is own:
        return False
    difference = fit.model.value - own.model.value
    margin = MARGIN if name in KINDS else MARGIN_OTHER
    if own.exact:
        return fit.exact and difference > MARGIN
    if fit.covers and not own.covers and fit.plausible and name != PIXELS:
        return difference > -MARGIN_OTHER
    return fit.exact or difference > margin


def _saturated(images: Tensor, real: RealSet) -> tuple[float, float] | None:
    """Return the smallest and the largest value if many values are equal to them, but are not black and white."""
    if not real.preprocess.per_pixel:
        return None
    found = real.preprocess.inverse(images).transpose(0, 1).flatten(1)
    expected = real_pixels(real).transpose(0, 1).flatten(1)
    for end in (torch.amin, torch.amax):
        value = end(found, 1, keepdim=True)
        clamped = (found == value).float().mean(1) >= SATURATED
        moved = (value - end(expected, 1, keepdim=True)).abs().squeeze(1) > UNUSED
        if bool((clamped & moved).any()):
            return float(images.min()), float(images.max())
    return None


def _second(fits: dict[str, Fit]) -> float:
    return sorted(fit.model.value for fit in fits.values())[-2]
