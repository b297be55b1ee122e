"""Any classifier of torchvision as a `Network`, adapted to small images by removing its first reductions."""

from __future__ import annotations

import difflib

import torch
import torchvision
from torch import Tensor, nn

from dd_bench.models.network import Network


class TorchvisionNet(Network):
    """A torchvision model whose last linear layer is the classifier of the `Network`.

    The models are designed for 224x224 pixels and halve the map five times, so a 32x32 image becomes one pixel. The
    first `keep_size` layers that reduce the size are changed: a convolution gets stride 1, and a pooling is removed.
    The CIFAR variants in the papers correspond to `keep_size=1` for EfficientNet and 2 for MobileNetV2, ShuffleNetV2
    and ResNets. The embedding is the input of the last layer. There are no activation maps.
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
        """Build the network for images `(c, h, w)` and check it with two blank images.

        Args:
            name: one of `torchvision.models.list_models(torchvision.models)`.
            keep_size: number of size reductions to remove, counted from the input.
            weights: torchvision's name of pretrained weights to download, e.g. IMAGENET1K_V1; null: random weights.

        Raises:
            ValueError: the name is unknown, the model has fewer reductions than `keep_size`, or it does not accept the
                images.
        """
        super().__init__()
        known = torchvision.models.list_models(torchvision.models)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
            raise ValueError(
                f"torchvision has no model {name!r}. Similar names: {', '.join(near)}. Use model.name=NAME"
            )
        channels = image_shape[0]
        if weights is not None and channels != 3:
            raise ValueError(
                f"pretrained weights require images with 3 channels, got {channels}. Use model.weights=null"
            )
        body = torchvision.models.get_model(name, weights=weights, num_classes=num_classes)
        if channels != 3:
            _set_input_channels(body, channels)
        _remove_reductions(body, keep_size, name)
        self.classifier = _remove_classifier(body, name)
        self.body = body
        self.eval()
        try:
            with torch.no_grad():
                self(torch.zeros(2, *image_shape))
        except RuntimeError as error:
            shape = f"{image_shape[1]}x{image_shape[2]}"
            raise ValueError(
                f"torchvision model {name!r} does not accept {shape} images ({error}). Use model=convnet"
            ) from error
        self.train()

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `Network`; there are no maps."""
        return [], self.body(x)


def _parent(body: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, last = name.rpartition(".")
    return body.get_submodule(path), last


def _set_input_channels(body: nn.Module, channels: int) -> None:
    """Replace the first convolution by one with the number of channels of the images."""
    name, old = next((n, m) for n, m in body.named_modules() if isinstance(m, nn.Conv2d))
    parent, last = _parent(body, name)
    bias = old.bias is not None
    new = nn.Conv2d(channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=bias)  # type: ignore[arg-type]
    setattr(parent, last, new)


def _remove_reductions(body: nn.Module, count: int, name: str) -> None:
    """Change the first `count` layers with a stride > 1: convolutions get stride 1, and poolings are removed."""
    strided = []
    for path, module in body.named_modules():
        stride = getattr(module, "stride", 1)
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) and stride not in (1, (1, 1)):
            strided.append((path, module))
    if len(strided) < count:
        raise ValueError(
            f"model.keep_size must be <= {len(strided)}, the number of size reductions in torchvision model {name!r}, "
            f"got {count}. Use model.keep_size={len(strided)}"
        )
    for path, module in strided[:count]:
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        else:
            setattr(*_parent(body, path), nn.Identity())


def _remove_classifier(body: nn.Module, name: str) -> nn.Linear:
    """Replace the last linear layer of the model by an identity, and return the layer."""
    linear = [(path, m) for path, m in body.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ValueError(f"torchvision model {name!r} has no linear layer. Use model.name=resnet18")
    path, classifier = linear[-1]
    setattr(*_parent(body, path), nn.Identity())
    return classifier
