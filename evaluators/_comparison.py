"""Comparison of the images of a set with real training images: features, pixels and gradients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import torch
from torch import Tensor

from dd_bench.api import Inputs, Network, RealSet, eval_batch_size, generator

from ._feature_statistics import coverage_and_density, nearest_distances, redundancy
from ._gradient_alignment import alignment, mean_gradient

BASELINE_IMAGES = 200
"""Number of real images whose distance to the nearest other real image is measured."""
COPY = 0.5 / 255
"""An image whose distance to a real image is at most half a step of 8-bit pixels is a copy."""


@dataclass(frozen=True)
class Comparison:
    """The images of a set, and the real images that they are compared with.

    Attributes:
        images: training inputs of the set, `(n, c, h, w)`.
        labels: their labels, hard `(n,)` or soft `(n, k)`.
        real: the real set.
        seed: base seed of the draws of real images.
        real_per_class: maximum number of real images of a class for statistics of features.
        gradient_images: maximum number of real images for gradients.
        neighbours: see `coverage_and_density`.
    """

    images: Inputs
    labels: Tensor
    real: RealSet
    seed: int
    real_per_class: int
    gradient_images: int
    neighbours: int | None

    @torch.no_grad()
    def feature_statistics(self, net: Network) -> dict[str, float]:
        """Return the statistics in the features of a network in eval mode, by metric."""
        real, size = self.real, eval_batch_size(net, self.real.shape)

        def features(index: Tensor) -> Tensor:
            return torch.cat([net.embed(real.train.inputs(part)) for part in index.split(size)])

        syn = torch.cat([net.embed(self.images[part]) for part in self._all.split(size)])
        by_class = [features(self._real_of_class(c)) for c in range(real.num_classes)]
        centre = torch.stack([of_class.mean(0) for of_class in by_class]).mean(0)
        covered, pairs, real_pairs = [], [], []
        for c, real_c in enumerate(by_class):
            syn_c = syn[self._classes == c]
            if len(real_c) > 1:
                covered.append(coverage_and_density(real_c, syn_c, self.neighbours))
            if (of_set := redundancy(syn_c - centre)) and (of_real := redundancy(real_c - centre)):
                pairs.append(of_set)
                real_pairs.append(of_real)
        coverages, densities = zip(*covered, strict=True)
        values = {"coverage": fmean(coverages), "density": fmean(densities)}
        if pairs:
            values["redundancy"], values["redundancy_nearest"] = (fmean(v) for v in zip(*pairs, strict=True))
            values["redundancy_real"] = fmean(mean for mean, _ in real_pairs)
        own = self._baseline
        values["nearest_feature"] = float(nearest_distances(syn, real, features, size).mean())
        values["nearest_feature_real"] = float(
            nearest_distances(features(own), real, features, size, own).mean()
        )
        return values

    @cached_property
    def pixel_distances(self) -> dict[str, float]:
        """The distances of the pixels to the nearest real images, by metric."""
        real, own = self.real, self._baseline

        def pixels(index: Tensor) -> Tensor:
            return real.train.pixels(index).flatten(1).float() / 255

        size = max(1, (64 << 20) // (4 * pixels(own[:1]).shape[1]))
        inputs = torch.cat([self.images[part] for part in self._all.split(1000)])
        distance = nearest_distances(real.preprocess.inverse(inputs).flatten(1), real, pixels, size)
        return {
            "nearest_pixel": float(distance.mean()),
            "nearest_pixel_real": float(nearest_distances(pixels(own), real, pixels, size, own).mean()),
            "copies": float((distance <= COPY).double().mean()),
        }

    def alignment(self, net: Network) -> Tensor:
        """Return the cosine of the gradient of the set and that of the real images, 0-d on the device."""
        size, real, index = eval_batch_size(net, self.real.shape), self.real, self._gradient_index
        of_set = mean_gradient(net, self.images, self.labels, size)
        return alignment(of_set, mean_gradient(net, self._gradient_inputs, real.train.labels[index], size))

    @cached_property
    def _gradient_index(self) -> Tensor:
        return self._draw(self.gradient_images, "gradient")

    @cached_property
    def _gradient_inputs(self) -> Tensor:
        return self.real.train.inputs(self._gradient_index)

    @cached_property
    def _baseline(self) -> Tensor:
        return self._draw(BASELINE_IMAGES, "nearest")

    @cached_property
    def _classes(self) -> Tensor:
        return self.labels if self.labels.ndim == 1 else self.labels.argmax(1)

    @property
    def _all(self) -> Tensor:
        return torch.arange(len(self.labels), device=self.labels.device)

    def _draw(self, count: int, stream: str) -> Tensor:
        """Return `count` random indices of training images in ascending order, or all if there are fewer."""
        rng = generator("cpu", self.seed, "diagnostics", stream)
        index = torch.randperm(len(self.real.train), generator=rng)[:count].sort().values
        return index.to(self.labels.device)

    def _real_of_class(self, c: int) -> Tensor:
        index, rng = self.real.train.of_class(c), generator("cpu", self.seed, "diagnostics", c)
        return index[torch.randperm(len(index), generator=rng)[: self.real_per_class].to(index.device)]
