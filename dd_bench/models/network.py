"""What every architecture gives the rest of the project: logits, an embedding, and its activation maps."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Network(nn.Module, ABC):
    """A classifier `x (n, c, h, w) -> logits (n, k)` that can be cut before its last linear layer.

    Constructors take `(image_shape, num_classes, **knobs)`; the knobs are the keys of `conf/model/*.yaml`.
    `self.classifier` is the last layer, applied to `embed(x)`.
    """

    classifier: nn.Module

    @abstractmethod
    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Returns the activation maps, first layer first, each `(n, c', h', w')` after its non-linearity and
        before its pooling, and the embedding `(n, d)`, the flattened input of `classifier`.

        A network without spatial maps (an MLP) returns an empty list.
        """

    def embed(self, x: Tensor) -> Tensor:
        """Returns the embedding `(n, d)`."""
        return self.activations(x)[1]

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits `(n, k)`."""
        logits: Tensor = self.classifier(self.embed(x))
        return logits


def batch_coupled(net: nn.Module) -> bool:
    """Whether a sample's output depends on the others of its batch in train mode (BatchNorm)."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())


def num_parameters(net: nn.Module) -> int:
    """Returns the number of trainable values p."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def check_image_shape(name: str, shape: tuple[int, int, int], divisor: int) -> None:
    """Raises ValueError if images of `shape` (c, h, w) vanish under `divisor`-fold downsampling."""
    if min(shape[1:]) < divisor:
        raise ValueError(
            f"{name} halves its input {divisor.bit_length() - 1} times, so images of {shape[1]}x{shape[2]} "
            f"vanish. Take a shallower network, e.g. model=convnet model.depth=2"
        )


def flat(x: Tensor) -> Tensor:
    """Flattens `(n, ...)` to `(n, d)`."""
    return torch.flatten(x, 1)
