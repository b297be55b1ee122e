"""From pixels in [0, 1] to network inputs and back: per-channel normalisation or ZCA whitening.

The fitted transform travels with every synthetic set: scored under another one, a set loses tens of points, and
nothing crashes. So an evaluator compares digests and refuses a mismatch.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from kornia.enhance import ZCAWhitening
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
        """Returns what JSON can hold of the transform; with `tensors()` it says everything."""

    def tensors(self) -> dict[str, Tensor]:
        """Returns the fitted arrays, empty for a transform that is all in `config()`."""
        return {}

    @property
    def digest(self) -> str:
        """Sha256 of `config()` and `tensors()`."""
        digest = hashlib.sha256(repr(sorted(self.config().items())).encode())
        for name, tensor in sorted(self.tensors().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()


class Normalise(Preprocess):
    """Per-channel `(x - mean) / std`."""

    kind = "normalise"

    def __init__(self, mean: list[float], std: list[float]):
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


class ZCA(Preprocess):
    """ZCA whitening `(x - mean) U diag(1/sqrt(lambda + eps)) U^T` of flattened pixels in [0, 1].

    No per-channel normalisation before it, epsilon 0.1 as the trajectory-matching papers use it, fitted by
    `kornia.enhance.ZCAWhitening` on training images alone.
    """

    kind = "zca"

    def __init__(self, mean: Tensor, transform: Tensor, transform_inverse: Tensor, eps: float):
        """Takes the fitted `mean (1, d)`, `transform (d, d)` and its inverse; use `fit`."""
        self.mean, self.transform, self.transform_inverse, self.eps = mean, transform, transform_inverse, eps

    @classmethod
    def fit(cls, pixels: Tensor, eps: float = 0.1) -> ZCA:
        """Fits the whitening to training images `(n, c, h, w)` with values in [0, 1]."""
        fitted = ZCAWhitening(eps=eps, compute_inv=True).fit(pixels.flatten(1))
        return cls(fitted.mean_vector, fitted.transform_matrix, fitted.transform_inv, eps)

    def __call__(self, pixels: Tensor) -> Tensor:
        """See `Preprocess`."""
        mean, transform = self.mean.to(pixels.device), self.transform.to(pixels.device)
        return ((pixels.flatten(1) - mean) @ transform).view_as(pixels)

    def inverse(self, inputs: Tensor) -> Tensor:
        """See `Preprocess`."""
        mean, back = self.mean.to(inputs.device), self.transform_inverse.to(inputs.device)
        return (inputs.flatten(1) @ back + mean).view_as(inputs)

    def config(self) -> dict[str, Any]:
        """See `Preprocess`."""
        return {"kind": self.kind, "eps": self.eps}

    def tensors(self) -> dict[str, Tensor]:
        """See `Preprocess`."""
        return {"mean": self.mean, "transform": self.transform, "transform_inverse": self.transform_inverse}


def restore(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Preprocess:
    """Rebuilds a transform from `config()` and `tensors()`.

    Raises:
        ValueError: an unknown kind.
    """
    if config["kind"] == Normalise.kind:
        return Normalise(config["mean"], config["std"])
    if config["kind"] == ZCA.kind:
        return ZCA(tensors["mean"], tensors["transform"], tensors["transform_inverse"], config["eps"])
    raise ValueError(f"unknown preprocessing {config['kind']!r}; this version knows 'normalise' and 'zca'")
