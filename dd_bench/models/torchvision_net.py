"""Any classifier of torchvision as a `Network`, made fit for small images by leaving out its first reductions."""

from __future__ import annotations

import difflib

import torch
import torchvision
from torch import Tensor, nn

from dd_bench.models.network import Network


class TorchvisionNet(Network):
    """A torchvision model, cut before its last linear layer.

    Designed for 224 pixels, they halve the map five times, to one value of 32. The first `keep_size` layers that would
    shrink it keep it: a convolution gets stride 1, a pooling goes. 1 for EfficientNet, 2 for MobileNetV2, ShuffleNetV2
    and ResNets is what the CIFAR variants of these papers have. The embedding is what the last layer is given;
    activation maps are not offered.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        name: str,
        keep_size: int,
        weights: str | None,
    ):
        """Build the network for images `(c, h, w)`, and runs two blank images through it.

        Args:
            name: one of `torchvision.models.list_models(torchvision.models)`.
            keep_size: how many of the first reductions are left out.
            weights: torchvision's name of pretrained weights, e.g. IMAGENET1K_V1, which it downloads; null: none.

        Raises:
            ValueError: an unknown name, fewer reductions than `keep_size`, or images the model cannot take.
        """
        super().__init__()
        known = torchvision.models.list_models(torchvision.models)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
            raise ValueError(
                f"torchvision has no model {name!r}. Take model.name=NAME, near: {', '.join(near)}"
            )
        channels = image_shape[0]
        if weights is not None and channels != 3:
            raise ValueError(
                f"pretrained weights take 3 channels, these images have {channels}. Use model.weights=null"
            )
        body = torchvision.models.get_model(name, weights=weights, num_classes=num_classes)
        if channels != 3:
            _take_channels(body, channels)
        _keep_size(body, keep_size, name)
        self.classifier = _cut(body, name)
        self.body = body
        self.eval()
        try:
            with torch.no_grad():
                self(torch.zeros(2, *image_shape))
        except RuntimeError as error:
            shape = f"{image_shape[1]}x{image_shape[2]}"
            raise ValueError(
                f"torchvision model {name!r} cannot take {shape} images ({error}). Take model=convnet"
            ) from error
        self.train()

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `Network`; no maps."""
        return [], self.body(x)


def _parent(body: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, last = name.rpartition(".")
    return body.get_submodule(path), last


def _take_channels(body: nn.Module, channels: int) -> None:
    """Replace the first convolution by one of as many channels as the images have."""
    name, old = next((n, m) for n, m in body.named_modules() if isinstance(m, nn.Conv2d))
    parent, last = _parent(body, name)
    bias = old.bias is not None
    new = nn.Conv2d(channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=bias)  # type: ignore[arg-type]
    setattr(parent, last, new)


def _keep_size(body: nn.Module, count: int, name: str) -> None:
    """Takes the stride from the first `count` layers that have one."""
    strided = []
    for path, module in body.named_modules():
        stride = getattr(module, "stride", 1)
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) and stride not in (1, (1, 1)):
            strided.append((path, module))
    if len(strided) < count:
        raise ValueError(
            f"torchvision model {name!r} shrinks {len(strided)} times. Use model.keep_size={len(strided)} or less"
        )
    for path, module in strided[:count]:
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        else:
            setattr(*_parent(body, path), nn.Identity())


def _cut(body: nn.Module, name: str) -> nn.Linear:
    """Takes the last linear layer out of the model and returns it."""
    linear = [(path, m) for path, m in body.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ValueError(f"torchvision model {name!r} has no linear layer. Take model.name=resnet18")
    path, classifier = linear[-1]
    setattr(*_parent(body, path), nn.Identity())
    return classifier
