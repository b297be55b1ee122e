"""What every architecture gives the rest of the project: logits, an embedding, and its activation maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn


class Network(ABC, nn.Module):  # in this order: `higher` derives from both
    """A classifier `x (n, c, h, w) -> logits (n, k)` that can be cut before its last linear layer.

    Constructors take `(image_shape, num_classes, **knobs)`; the knobs are the keys of `conf/model/*.yaml`.
    `self.classifier` is the last layer, applied to `embed(x)`.
    """

    modality: ClassVar[str] = "image"
    classifier: nn.Linear

    @abstractmethod
    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the activation maps, first layer first, and the embedding.

        A map `(n, c', h', w')` is taken after its non-linearity and before its pooling; the embedding
        `(n, d)` is the flattened input of `classifier`. A network without maps (an MLP) returns no map.
        """

    def embed(self, x: Tensor) -> Tensor:
        """Return the embedding `(n, d)`."""
        return self.activations(x)[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(n, k)`."""
        logits: Tensor = self.classifier(self.embed(x))
        return logits


class BlockNetwork(Network):
    """A network of blocks that end in their non-linearity, each followed by a pooling or by none."""

    blocks: nn.ModuleList
    pools: nn.ModuleList

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `Network`; the embedding is the flattened output of the last pooling."""
        maps = []
        for block, pool in zip(self.blocks, self.pools, strict=True):
            maps.append(block(x))
            x = pool(maps[-1])
        return maps, flat(x)


def batch_coupled(net: nn.Module) -> bool:
    """Whether a sample's output depends on the others of its batch in train mode (BatchNorm)."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())


def num_parameters(net: nn.Module) -> int:
    """Return the number of trainable values p."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def check_maps(
    name: str, image_shape: tuple[int, int, int], smallest: tuple[int, int], norm: str, take: str
) -> None:
    """Refuses images too small for an architecture.

    Args:
        name: the architecture, for the message.
        image_shape: `(c, h, w)`.
        smallest: the height and width of the smallest map that `norm` or a later layer is given.
        norm: what normalises that map. InstanceNorm of a single value is its bias, whatever the image.
        take: what to write on the command line instead.

    Raises:
        ValueError: the map is empty, or a single value under `instancenorm`.
    """
    height, width = smallest
    area = max(height, 0) * max(width, 0)
    if area > 1 or (area == 1 and norm != "instancenorm"):
        return
    end = "nothing" if area == 0 else "one value a channel, of which instancenorm leaves nothing"
    raise ValueError(f"{name} shrinks {image_shape[1]}x{image_shape[2]} images to {end}. Take {take}")


def flat(x: Tensor) -> Tensor:
    """Flatten `(n, ...)` to `(n, d)`."""
    return torch.flatten(x, 1)


def executed_norms(net: nn.Module, shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Return the names of the BatchNorm layers that an image `(c, h, w)` passes, in order of registration.

    Only layers of maps (`BatchNorm2d`) with running statistics count.
    """
    passed: set[str] = set()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: passed.add(name))
        for name, module in net.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
    ]
    training = net.training
    net.eval()
    with torch.no_grad():
        net(next(net.parameters()).new_zeros(1, *shape))
    net.train(training)
    for hook in hooks:
        hook.remove()
    return tuple(name for name, _ in net.named_modules() if name in passed)
