"""Invertible maps from pixels in [0, 1] to network inputs: per-channel normalisation and ZCA whitening.

The fitted transform is stored with every synthetic set. With another transform, the accuracy of a set silently drops by
tens of percentage points. An evaluation is therefore rejected if the digests of the two transforms differ.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dd_bench.runtime.transfer import constant

_FIT_BYTES = 32 << 20  # float64 images in memory while ZCA is fitted
_CHUNK = 4096  # images


class Preprocess(ABC):
    """An invertible map of images `(n, c, h, w)`."""

    kind: str
    per_pixel = False
    """Whether every value is mapped on its own, so that it costs little to compute the inputs of each batch again."""

    @abstractmethod
    def __call__(self, pixels: Tensor) -> Tensor:
        """Map pixels in [0, 1] to network inputs."""

    @abstractmethod
    def inverse(self, inputs: Tensor) -> Tensor:
        """Map network inputs back to pixels (not clamped)."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return the JSON-serialisable part of the transform. Together with `tensors()` it defines the transform.

        Two transforms with the same `config()` are equal up to rounding.
        """

    def tensors(self) -> dict[str, Tensor]:
        """Return the fitted arrays; empty if `config()` defines the transform."""
        return {}

    def accepts(self, shape: Sequence[int]) -> bool:
        """Return whether the transform can be applied to images `(c, h, w)`."""
        try:
            return self(torch.zeros(1, *shape)).shape[1:] == torch.Size(shape)
        except RuntimeError:
            return False

    @property
    def digest(self) -> str:
        """Sha256 of `config()`. It identifies the data to which the transform was fitted, not the fitted values.

        The fitted values differ in the last bits between devices and library versions. Because the digest does not
        contain them, a set distilled on a GPU can be evaluated on a CPU.
        """
        return hashlib.sha256(repr(sorted(self.config().items())).encode()).hexdigest()


class Normalise(Preprocess):
    """Per-channel `(x - mean) / std`."""

    kind = "normalise"
    per_pixel = True

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        """Create a normalisation with one mean and one positive std per channel, for pixels in [0, 1]."""
        if len(mean) != len(std) or not mean or min(std) <= 0:
            raise ValueError(
                f"mean and std must both have one value per channel, and std must be > 0, got mean={mean} std={std}. "
                "Example: dataset.mean=[0.5] dataset.std=[0.25]"
            )
        self.mean, self.std = [float(m) for m in mean], [float(s) for s in std]

    def _constants(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (constant(tuple(v), like.device, like.dtype) for v in (self.mean, self.std))
        return mean[:, None, None], std[:, None, None]

    def __call__(self, pixels: Tensor) -> Tensor:
        """See `Preprocess`."""
        mean, std = self._constants(pixels)
        return (pixels - mean) / std

    def inverse(self, inputs: Tensor) -> Tensor:
        """See `Preprocess`."""
        mean, std = self._constants(inputs)
        return inputs * std + mean

    def config(self) -> dict[str, Any]:
        """See `Preprocess`."""
        return {"kind": self.kind, "mean": self.mean, "std": self.std}


class Identity(Preprocess):
    """The identity. Used for graphs, whose node and edge labels are passed to networks unchanged."""

    kind = "none"
    per_pixel = True

    def __call__(self, pixels: Tensor) -> Tensor:
        """See `Preprocess`."""
        return pixels

    def inverse(self, inputs: Tensor) -> Tensor:
        """See `Preprocess`."""
        return inputs

    def config(self) -> dict[str, Any]:
        """See `Preprocess`."""
        return {"kind": self.kind}


class ZCA(Preprocess):
    """ZCA whitening `(x - mean) U diag(1/sqrt(lambda + eps)) U^T` of flattened pixels in [0, 1].

    As in the trajectory-matching papers, eps is 0.1 and the pixels are not normalised per channel first. The transform
    is fitted to training images only. Whitened images have the covariance `U diag(lambda / (lambda + eps)) U^T`, so
    directions with a variance far below eps remain small.

    The result equals that of `kornia.enhance.ZCAWhitening`, which needs several copies of all images in float64. Here
    the mean and the covariance are summed over parts of the images.
    """

    kind = "zca"

    def __init__(
        self, mean: Tensor, transform: Tensor, transform_inverse: Tensor, eps: float, fitted_on: str
    ):
        """Create a transform from the fitted `mean (1, d)`, `transform (d, d)` and its inverse. See `fit`."""
        self.mean, self.transform, self.transform_inverse = mean, transform, transform_inverse
        self.eps, self.fitted_on = eps, fitted_on

    @classmethod
    def fit(cls, pixels: Tensor, eps: float = 0.1, device: torch.device | None = None) -> ZCA:
        """Fit the whitening to training images in float64.

        The cost grows with `d = c h w`. On a CPU, 28x28x1 takes seconds and 32x32x3 a minute. The memory is
        that of a few `(d, d)` matrices, 75 MB each for 32x32x3 and 1.2 GB for 64x64x3; it does not grow with n.

        Args:
            pixels: images `(n, c, h, w)`, uint8, or floats in [0, 1].
            eps: added to the eigenvalues.
            device: where the transform is computed; None for the device of `pixels`.
        """
        n, d = len(pixels), pixels[0].numel()
        parts = pixels.split(max(1, _FIT_BYTES // (8 * d)))
        digest = hashlib.sha256(f"{tuple(pixels.shape)}".encode())
        total = torch.zeros(1, d, dtype=torch.float64, device=device or pixels.device)
        for part in parts:
            stored = part if part.dtype == torch.uint8 else (part * 255).round().to(torch.uint8)
            digest.update(stored.cpu().contiguous().numpy().data)
            total += _flat(part, device).sum(0, keepdim=True)
        mean = total / n
        covariance = torch.zeros(d, d, dtype=torch.float64, device=mean.device)
        for part in parts:
            centred = _flat(part, device) - mean
            covariance.addmm_(centred.T, centred)
        u, eigenvalues, _ = torch.linalg.svd(covariance / (n - 1))
        scale = (eigenvalues + eps).sqrt()[:, None]
        transform, inverse = u @ (u.T / scale), u @ (scale * u.T)
        return cls(mean.float(), transform.float(), inverse.float(), eps, digest.hexdigest())

    def _move_to(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Move the fitted arrays to `device` permanently (the matrices of 32x32x3 take 72 MB) and return them."""
        if self.mean.device != device:
            with torch.inference_mode(False):  # autograd cannot use inference tensors later
                self.mean, self.transform = self.mean.to(device), self.transform.to(device)
                self.transform_inverse = self.transform_inverse.to(device)
        return self.mean, self.transform, self.transform_inverse

    def __call__(self, pixels: Tensor) -> Tensor:
        """See `Preprocess`. Autocast is disabled, because it would round the sums of d products."""
        mean, transform, _ = self._move_to(pixels.device)
        with torch.autocast(pixels.device.type, enabled=False):
            return ((pixels.flatten(1) - mean) @ transform).view(pixels.shape)

    def inverse(self, inputs: Tensor) -> Tensor:
        """See `Preprocess`."""
        mean, _, inverse = self._move_to(inputs.device)
        with torch.autocast(inputs.device.type, enabled=False):
            return (inputs.flatten(1) @ inverse + mean).view(inputs.shape)

    def config(self) -> dict[str, Any]:
        """See `Preprocess`. `fitted_on` is the sha256 of the shape and bytes of the uint8 training pixels."""
        return {"kind": self.kind, "eps": self.eps, "fitted_on": self.fitted_on}

    def tensors(self) -> dict[str, Tensor]:
        """See `Preprocess`."""
        return {"mean": self.mean, "transform": self.transform, "transform_inverse": self.transform_inverse}


def _flat(pixels: Tensor, device: torch.device | None) -> Tensor:
    """Return pixels in [0, 1] as float64 `(n, d)`. Division in float32 gives the values that networks see."""
    pixels = pixels.to(device or pixels.device)
    return (pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels).flatten(1).double()


def channel_statistics(pixels: Tensor) -> tuple[list[float], list[float]]:
    """Return the mean and standard deviation of each channel of uint8 images `(n, c, h, w)`, for pixels in [0, 1].

    Values are rounded to four digits, like published constants. The standard deviation of a constant channel is 1.
    """
    counts = torch.zeros(
        pixels.shape[1], 256, dtype=torch.int64
    )  # exact, and needs no copy of the images as floats
    for chunk in pixels.split(_CHUNK):
        counts += torch.stack([torch.bincount(c.flatten(), minlength=256) for c in chunk.unbind(1)]).cpu()
    weights, levels = counts / counts.sum(1, keepdim=True).double(), torch.arange(256).double() / 255
    mean = weights @ levels
    std = (weights * (levels - mean[:, None]) ** 2).sum(1).sqrt()
    return [round(m, 4) for m in mean.tolist()], [round(s, 4) or 1.0 for s in std.tolist()]


def fit_preprocess(
    kind: str, pixels: Tensor, *, mean: Sequence[float], std: Sequence[float], device: torch.device
) -> Preprocess:
    """Return the transform `kind` (the key `dataset.preprocess`) for training images, uint8 `(n, c, h, w)`.

    `normalise` uses the given `mean` and `std`. `zca` is fitted on `device` to all training images, before a validation
    split is cut off, so that a dataset has the same whitening for every `val_fraction`.

    Raises:
        ValueError: `kind` is unknown.
    """
    if kind == Normalise.kind:
        return Normalise(mean, std)
    if kind == ZCA.kind:
        return ZCA.fit(pixels, device=device)
    raise ValueError(
        f"dataset.preprocess must be normalise or zca, got {kind!r}. Example: dataset.preprocess=normalise"
    )


def restore(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Preprocess:
    """Rebuild a transform from its `config()` and `tensors()`.

    Raises:
        ValueError: the kind is unknown, or an array has a wrong shape, a wrong dtype or a value that is not finite.
        KeyError: a key of `config` or an array is missing.
    """
    if config["kind"] == Normalise.kind:
        return Normalise(config["mean"], config["std"])
    if config["kind"] == Identity.kind:
        return Identity()
    if config["kind"] == ZCA.kind:
        fitted = tensors["mean"], tensors["transform"], tensors["transform_inverse"]
        d = fitted[0].shape[-1] if fitted[0].ndim else 0
        for array, shape in zip(fitted, [(1, d), (d, d), (d, d)], strict=True):
            if array.shape != shape or array.dtype != torch.float32 or not bool(torch.isfinite(array).all()):
                raise ValueError(
                    f"ZCA arrays must be finite float32 {shape}, got {array.dtype} {tuple(array.shape)}"
                )
        return ZCA(*fitted, config["eps"], config["fitted_on"])
    raise ValueError(f"preprocessing must be 'normalise', 'zca' or 'none', got {config['kind']!r}")
