"""Statistical models of real images: a Gaussian of patches with noise, and the statistics that error messages show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.runtime.seeding import generator

PATCH = 8
MAX_IMAGES, MAX_VALUES = 5000, 2**24  # of a sample of images
GAINS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.1, 1.2, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.0)  # unclamped images exceed 1
NOISE = 10.0 ** torch.linspace(-5, 4, 73, dtype=torch.float64)  # variances, relative to the model's images
HEADER = f"  {'':17}{'mean':>8}{'std':>8}{'min':>8}{'max':>8}{'neighbours':>12}{'channels':>10}"


class Likelihood(NamedTuple):
    """The best fit of a model.

    Attributes:
        value: log-likelihood per value in nats, without the constant.
        noise: standard deviation of the noise, divided by that of the model's images.
        gain: factor of the model's images.
    """

    value: float
    noise: float
    gain: float


def real_pixels(real: RealSet) -> Tensor:
    """Return pixels in [0, 1] of training images, `(n, c, h, w)` on the CPU; a fixed random sample of large sets."""
    return real.train.pixels(_sampled(len(real.train), math.prod(real.shape))).cpu().float() / 255


def sample(images: Tensor) -> Tensor:
    """Return images, or a fixed random sample if there are many."""
    index = _sampled(len(images), images[0].numel())
    return images if len(index) == len(images) else images[index]


def _sampled(n: int, values: int) -> Tensor:
    size = min(n, MAX_IMAGES, max(1, MAX_VALUES // values))
    return torch.randperm(n, generator=generator("cpu", 0, "import"))[:size]


@dataclass(frozen=True)
class Gaussian:
    """Gaussian model of images.

    Attributes:
        mean: the mean image `(1, c, h, w)`.
        eigenvalues: of the covariance of the values of a patch, float64 `(d,)`.
        eigenvectors: float64 `(d, d)`, in columns.
    """

    mean: Tensor
    eigenvalues: Tensor
    eigenvectors: Tensor

    @classmethod
    def of(cls, images: Tensor) -> Gaussian:
        """Fit the model to images `(n, c, h, w)`. Patches of all positions share their covariance."""
        mean = images.mean(0, keepdim=True)
        patches = _patches(images - mean)
        eigenvalues, eigenvectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        return cls(mean, eigenvalues.clamp_min(0), eigenvectors)

    def likelihood(self, images: Tensor, gains: Sequence[float] = GAINS) -> Likelihood:
        """Return the log-likelihood of `g * image + noise` for images `(n, c, h, w)`, maximised over g and noise."""
        x, mean = (_patches(t) @ self.eigenvectors for t in (images, self.mean))
        x = x.unflatten(0, (len(images), len(mean)))
        products = x.square().mean((0, 1)), (x * mean).mean((0, 1)), mean.square().mean(0)
        noise = self.eigenvalues.mean() * NOISE
        found = []
        for gain in gains:
            power = (products[0] - 2 * gain * products[1] + gain**2 * products[2]).clamp_min(0)
            variances = gain**2 * self.eigenvalues + noise[:, None]
            best = (-0.5 * (variances.log() + power / variances).mean(1)).max(0)
            found.append(Likelihood(float(best.values), float(NOISE[best.indices].sqrt()), gain))
        return max(found)


def _patches(images: Tensor) -> Tensor:
    """Cut images into patches of PATCH x PATCH pixels and all channels, float64 `(n * patches, values)`."""
    side = min(PATCH, *images.shape[2:])
    return F.unfold(images, side, stride=side).transpose(1, 2).flatten(0, 1).double()


class Statistics(NamedTuple):
    """Statistics of images, for error messages.

    Attributes:
        mean, std, low, high: of all values.
        neighbours: correlation of horizontally adjacent values, relative to the mean of their channel.
        channels: mean correlation of two channels; NaN for one channel.
    """

    mean: float
    std: float
    low: float
    high: float
    neighbours: float
    channels: float

    @classmethod
    def of(cls, images: Tensor) -> Statistics:
        """Compute the statistics of images `(n, c, h, w)`."""
        values = images.transpose(0, 1)
        left, right = (values[..., s].flatten(1) for s in (slice(None, -1), slice(1, None)))
        neighbours = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(left, right, strict=True)]
        c = len(values)
        between = torch.corrcoef(values.flatten(1)).view(c, c)
        channels = (between.sum() - between.trace()) / (c * (c - 1)) if c > 1 else torch.tensor(torch.nan)
        return cls(
            float(images.mean()),
            float(images.std()),
            float(images.min()),
            float(images.max()),
            float(torch.stack(neighbours).mean()),
            float(channels),
        )

    def row(self, name: str) -> str:
        """Return one line of a table with `HEADER`."""
        numbers = f"{self.mean:8.2f}{self.std:8.2f}{self.low:8.2f}{self.high:8.2f}{self.neighbours:12.2f}"
        return f"  {name:17}{numbers}" + (
            f"{'-':>10}" if self.channels != self.channels else f"{self.channels:10.2f}"
        )
