"""From pixels in [0, 1] to network inputs and back: per-channel normalisation or ZCA whitening.

The fitted transform travels with every synthetic set: scored under another one, a set loses tens of points,
and nothing crashes. So an evaluator compares digests and refuses a mismatch.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Preprocess(ABC):
    """An invertible map of images `(n, c, h, w)`."""

    kind: str

    @abstractmethod
    def __call__(self, pixels: Tensor) -> Tensor:
        """Maps pixels in [0, 1] to network inputs."""

    @abstractmethod
    def inverse(self, inputs: Tensor) -> Tensor:
        """Maps network inputs back to pixels (not clamped)."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Returns what JSON can hold of the transform; with `tensors()` it says everything.

        Two transforms with one `config()` are the same up to rounding.
        """

    def tensors(self) -> dict[str, Tensor]:
        """Returns the fitted arrays, empty for a transform that is all in `config()`."""
        return {}

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether the transform is of images `(c, h, w)`."""
        try:
            return self(torch.zeros(1, *shape)).shape[1:] == torch.Size(shape)
        except RuntimeError:
            return False

    @property
    def digest(self) -> str:
        """Sha256 of `config()`, which names the data a transform was fitted to, not the fitted floats.

        Those differ in their last bits between devices and library versions, and a set distilled on a GPU
        must be scored on a CPU.
        """
        return hashlib.sha256(repr(sorted(self.config().items())).encode()).hexdigest()


class Normalise(Preprocess):
    """Per-channel `(x - mean) / std`."""

    kind = "normalise"

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        """Takes one mean and one positive std a channel, of pixels in [0, 1]."""
        if len(mean) != len(std) or not mean or min(std) <= 0:
            raise ValueError(f"wanted as many means as positive stds, got mean={mean} std={std}")
        self.mean, self.std = [float(m) for m in mean], [float(s) for s in std]

    def _constants(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.tensor(self.mean, device=like.device, dtype=like.dtype)
        std = torch.tensor(self.std, device=like.device, dtype=like.dtype)
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
    """What graphs go through: their labels are what a network accepts."""

    kind = "none"

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

    No per-channel normalisation before it, epsilon 0.1 as the trajectory-matching papers use it, fitted by
    `kornia.enhance.ZCAWhitening` on training images alone. Whitened images have the covariance
    `U diag(lambda / (lambda + eps)) U^T`: directions of variance far below eps stay small.
    """

    kind = "zca"

    def __init__(
        self, mean: Tensor, transform: Tensor, transform_inverse: Tensor, eps: float, fitted_on: str
    ):
        """Takes the fitted `mean (1, d)`, `transform (d, d)` and its inverse; use `fit`."""
        self.mean, self.transform, self.transform_inverse = mean, transform, transform_inverse
        self.eps, self.fitted_on = eps, fitted_on

    @classmethod
    def fit(cls, pixels: Tensor, eps: float = 0.1) -> ZCA:
        """Fits the whitening to training images `(n, c, h, w)` with values in [0, 1], in float64.

        `d = c h w` decides the cost: 28x28x1 accepts seconds, 32x32x3 a minute on a CPU, 64x64x3 gigabytes.
        """
        from kornia.enhance import ZCAWhitening  # a second to import

        stored = (pixels * 255).round().to(torch.uint8).cpu().contiguous()
        fitted_on = hashlib.sha256(f"{tuple(stored.shape)}".encode() + stored.numpy().tobytes()).hexdigest()
        fitted = ZCAWhitening(eps=eps, compute_inv=True).fit(pixels.flatten(1).double())
        mean, transform, inverse = fitted.mean_vector, fitted.transform_matrix, fitted.transform_inv
        return cls(mean.float(), transform.float(), inverse.float(), eps, fitted_on)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the fitted arrays on `device`, where they stay: the matrices of 32x32x3 are 72 MB."""
        if self.mean.device != device:
            with torch.inference_mode(False):  # an inference tensor could not be differentiated through later
                self.mean, self.transform = self.mean.to(device), self.transform.to(device)
                self.transform_inverse = self.transform_inverse.to(device)
        return self.mean, self.transform, self.transform_inverse

    def __call__(self, pixels: Tensor) -> Tensor:
        """See `Preprocess`; float32 under autocast too, which would round a sum of d products."""
        mean, transform, _ = self._on(pixels.device)
        with torch.autocast(pixels.device.type, enabled=False):
            return ((pixels.flatten(1) - mean) @ transform).view(pixels.shape)

    def inverse(self, inputs: Tensor) -> Tensor:
        """See `Preprocess`."""
        mean, _, back = self._on(inputs.device)
        with torch.autocast(inputs.device.type, enabled=False):
            return (inputs.flatten(1) @ back + mean).view(inputs.shape)

    def config(self) -> dict[str, Any]:
        """See `Preprocess`; `fitted_on` is the sha256 of the training pixels as uint8."""
        return {"kind": self.kind, "eps": self.eps, "fitted_on": self.fitted_on}

    def tensors(self) -> dict[str, Tensor]:
        """See `Preprocess`."""
        return {"mean": self.mean, "transform": self.transform, "transform_inverse": self.transform_inverse}


def channel_statistics(pixels: Tensor) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel of images uint8 `(n, c, h, w)`, as pixels in [0, 1].

    Rounded to four digits, as the literature's constants are. The deviation of a constant channel is 1.
    """
    values = pixels.transpose(0, 1).flatten(1)
    mean = values.double().mean(1) / 255
    std = values.double().std(1, correction=0) / 255
    return [round(m, 4) for m in mean.tolist()], [round(s, 4) or 1.0 for s in std.tolist()]


def fit_preprocess(
    kind: str, pixels: Tensor, *, mean: Sequence[float], std: Sequence[float], device: torch.device
) -> Preprocess:
    """Builds the transform `dataset.preprocess` for the training images `pixels`, uint8 `(n, c, h, w)`.

    `normalise` accepts the constants `mean` and `std` of the literature; `zca` is fitted on `device` to the
    whole training split, a validation slice included: one dataset has one whitening, whatever is held out.

    Raises:
        ValueError: an unknown kind.
    """
    if kind == Normalise.kind:
        return Normalise(mean, std)
    if kind == ZCA.kind:
        return ZCA.fit(pixels.to(device).float() / 255)
    raise ValueError(
        f"unknown preprocessing {kind!r}. Use dataset.preprocess=normalise or dataset.preprocess=zca"
    )


def restore(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Preprocess:
    """Rebuilds a transform from `config()` and `tensors()`.

    Raises:
        ValueError: an unknown kind, or arrays that do not fit each other.
        KeyError: something is missing.
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
                raise ValueError(f"ZCA wants finite float32 {shape}, got {array.dtype} {tuple(array.shape)}")
        return ZCA(*fitted, config["eps"], config["fitted_on"])
    raise ValueError(f"unknown preprocessing {config['kind']!r}; this version knows 'normalise' and 'zca'")
