"""Base classes of all architectures, with logits, an embedding and activation maps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class Network(ABC, nn.Module):  # this order of the bases is required by the library `higher`
    """A classifier `x (n, c, h, w) -> logits (n, k)` whose last layer is linear.

    Constructors take `(image_shape, num_classes, **knobs)`, where the keys of `knobs` are those of
    `conf/model/*.yaml`. `self.classifier` is the last layer. Its input is `embed(x)`.
    """

    modality: ClassVar[str] = "image"
    later_knobs: ClassVar[dict[str, Any]] = {}
    """Knobs that were added later, with their old values. Keys omit them at these values and so remain valid."""
    file_knobs: ClassVar[tuple[str, ...]] = ()
    """Knobs that are paths of files. Keys contain the hash of the content instead."""
    classifier: nn.Linear

    @abstractmethod
    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the activation maps, first layer first, and the embedding.

        A map `(n, c', h', w')` is the output of a non-linearity before the pooling. The embedding `(n, d)` is the
        flattened input of `classifier`. A network without maps, such as an MLP, returns an empty list.
        """

    def embed(self, x: Tensor) -> Tensor:
        """Return the embedding `(n, d)`."""
        return self.activations(x)[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(n, k)`."""
        logits: Tensor = self.classifier(self.embed(x))
        return logits


class BlockNetwork(Network):
    """A network of blocks. Each block ends in a non-linearity, and a pooling or an identity follows the block."""

    blocks: nn.ModuleList
    pools: nn.ModuleList

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `Network`; the embedding is the flattened output of the last pooling."""
        maps = []
        for block, pool in zip(self.blocks, self.pools, strict=True):
            maps.append(block(x))
            x = pool(maps[-1])
        return maps, x.flatten(1)


def batch_coupled(net: nn.Module) -> bool:
    """Return whether the output for a sample depends on the rest of the batch in train mode (BatchNorm)."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())


def num_parameters(net: nn.Module) -> int:
    """Return the number p of trainable parameters."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def largest_activation(net: nn.Module, shape: tuple[int, int, int]) -> int:
    """Return the number of values in the largest output of a layer for an image `(c, h, w)`."""
    sizes = [math.prod(shape)]

    def record(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel())

    _run_once(net, shape, {module: record for module in net.modules()})
    return max(sizes)


def check_map_size(
    name: str, image_shape: tuple[int, int, int], map_size: tuple[int, int], norm: str, alternative: str
) -> None:
    """Check that images are large enough for a layer of an architecture.

    Args:
        name: name of the architecture, for the message.
        image_shape: `(c, h, w)`.
        map_size: height and width of the map that `norm` or a later layer receives.
        norm: normalisation of the map. InstanceNorm maps a single value to its bias, for every image.
        alternative: override suggested in the message.

    Raises:
        ValueError: the map is empty, or `instancenorm` receives a single value per channel.
    """
    height, width = map_size
    area = max(height, 0) * max(width, 0)
    if area > 1 or (area == 1 and norm != "instancenorm"):
        return
    result = "an empty map" if area == 0 else "one value per channel, which instancenorm makes constant"
    raise ValueError(
        f"{name} reduces {image_shape[1]}x{image_shape[2]} images to {result}. Use {alternative}"
    )


def executed_norms(net: nn.Module, shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Return the names of the BatchNorm layers that are executed for an image `(c, h, w)`, in order of registration.

    Only `BatchNorm2d` layers with running statistics are included.
    """
    executed: set[str] = set()
    norms: dict[nn.Module, Callable[..., None]] = {
        module: lambda *_, name=name: executed.add(name)
        for name, module in net.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
    }
    _run_once(net, shape, norms)
    return tuple(name for name, _ in net.named_modules() if name in executed)


@torch.no_grad()
def _run_once(
    net: nn.Module, shape: tuple[int, int, int], hooks: Mapping[nn.Module, Callable[..., None]]
) -> None:
    """Run `net` in eval mode on an image `(c, h, w)` of zeros, with hooks `(module, inputs, output)`."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    training = net.training
    net.eval()
    net(next(net.parameters()).new_zeros(1, *shape))
    net.train(training)
    for handle in handles:
        handle.remove()
