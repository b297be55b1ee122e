"""The transforms that released images may have: those of the dataset, common constants, and frequent mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.preprocess import ZCA, Identity, Normalise, Preprocess, channel_statistics

MAX_ZCA = 4096  # largest c h w for which a whitening is fitted to test it; its SVD took 18 s for 3x32x32
PIXELS = "pixels"
SAME = 0.01  # largest difference of means and standard deviations, in units of pixels, that does not matter
CONSTANTS: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "mean 0.5, std 0.5": ([0.5], [0.5]),
    "ImageNet's constants": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "CIFAR-10's constants": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    "MNIST's constants": ([0.1307], [0.3081]),
}
"""Mean and standard deviation per channel of common normalisations; one value for any number of channels."""


class Affine(Preprocess):
    """`scale * x + shift` for each value; `scale` and `shift` have shapes that broadcast to `(n, c, h, w)`."""

    kind = "affine"
    per_pixel = True

    def __init__(self, scale: Tensor, shift: Tensor):
        self.scale, self.shift = scale, shift

    def __call__(self, pixels: Tensor) -> Tensor:
        """See `Preprocess`."""
        return pixels * self.scale + self.shift

    def inverse(self, inputs: Tensor) -> Tensor:
        """See `Preprocess`."""
        return (inputs - self.shift) / self.scale

    def config(self) -> dict[str, Any]:
        """See `Preprocess`."""
        return {"kind": self.kind, "scale": self.scale.tolist(), "shift": self.shift.tolist()}


def known_transforms(real: RealSet, pixels: Tensor) -> dict[str, Preprocess]:
    """Return the transforms to compare, by name.

    The names are values of `dataset.preprocess`, `pixels` for no transform, keys of `CONSTANTS`, or mistakes for which
    there is no option.

    Args:
        real: its own transform is one of them.
        pixels: training images, floats in [0, 1], to which the other transforms are fitted.
    """
    stored = (pixels * 255).round().to(torch.uint8)
    own = real.preprocess
    found: dict[str, Preprocess] = {PIXELS: Identity(), own.kind: own}
    statistics = Normalise(*channel_statistics(stored))
    found.setdefault(Normalise.kind, statistics)
    if ZCA.kind not in found and pixels[0].numel() <= MAX_ZCA:
        found[ZCA.kind] = ZCA.fit(pixels)
    c = pixels.shape[1]
    for name, (mean, std) in CONSTANTS.items():
        if len(mean) in (1, c):
            found[name] = Normalise([*mean] * (c // len(mean)), [*std] * (c // len(std)))
    if isinstance(own, Normalise):
        found["statistics of the dataset"] = statistics
        for name, other in list(found.items()):
            if isinstance(other, Normalise) and other is not own and _is_close(other, own):
                del found[name]
    if isinstance(own, Normalise):
        scale, centre = torch.tensor(own.std)[:, None, None], torch.tensor(own.mean)[:, None, None]
        found["negated inputs"] = Affine(-1 / scale, centre / scale)
        found["negative images"] = Affine(-1 / scale, (1 - centre) / scale)
    spread = pixels.std(0, correction=0).clamp_min(1e-3)
    found["standardised pixels"] = Affine(1 / spread, -pixels.mean(0) / spread)
    return found


def _is_close(a: Normalise, b: Normalise) -> bool:
    return all(abs(x - y) <= SAME for x, y in zip(a.mean + a.std, b.mean + b.std, strict=True))


def advice(name: str, transform: Preprocess) -> str | None:
    """Return the option with which images of this transform can be imported, or None if there is none."""
    if name == PIXELS:
        return "Add --pixels"
    if name in (Normalise.kind, ZCA.kind):
        return f"Use dataset.preprocess={name}"
    if isinstance(transform, Normalise):
        mean, std = (",".join(f"{v:g}" for v in values) for values in (transform.mean, transform.std))
        return f"Add --mean {mean} --std {std}"
    return None
