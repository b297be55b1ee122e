"""Any architecture of timm (Wightman, PyTorch Image Models) as a `Network`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from dd_bench.models.network import Network


class TimmNet(Network):
    """A timm model, cut before its last linear layer.

    Most are made for 224 pixels: of 32, `resnet18` leaves a last map of 1x1. Models of a fixed image size
    (ViT, Swin, Mixer) are told ours. In train mode dropout and stochastic depth use the global generator.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        name: str,
        pretrained: bool,
        drop_rate: float,
        options: Mapping[str, Any],
    ):
        """Build the network for images `(c, h, w)`, and runs one blank image through it.

        Args:
            name: a name of `timm.list_models()`, with or without the tag of its weights.
            pretrained: whether timm downloads weights; the first convolution is fitted to our channels.
            drop_rate: dropout before the classifier.
            options: further arguments of `timm.create_model`, e.g. `{patch_size: 4}` for a ViT.

        Raises:
            ValueError: an unknown name, no single linear classifier, or images the model cannot take.
        """
        super().__init__()
        if not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.3)
            raise ValueError(f"timm has no model {name!r}. Take model.name=NAME, near: {', '.join(near)}")
        channels, height, width = image_shape
        config = timm.get_pretrained_cfg(name)
        fixed = config is not None and config.fixed_input_size
        size: dict[str, Any] = {"img_size": (height, width)} if fixed else {}
        body: Any = timm.create_model(
            name,
            pretrained=pretrained,
            in_chans=channels,
            num_classes=num_classes,
            drop_rate=drop_rate,
            **size,
            **options,
        )
        classifier = body.get_classifier()
        if not isinstance(classifier, nn.Linear):
            kind = type(classifier).__name__
            raise ValueError(
                f"timm model {name!r} ends in a {kind}, not in one linear layer. Take model.name=resnet18"
            )
        body.reset_classifier(0)  # else its weights are registered twice
        self.body = body
        self.classifier = classifier
        self._check_size(name, image_shape)

    def _check_size(self, name: str, image_shape: tuple[int, int, int]) -> None:
        shape = f"{image_shape[1]}x{image_shape[2]}"
        patches = getattr(self.body, "patch_embed", None)
        if isinstance(patches, PatchEmbed):
            height, width = patches.patch_size
            # timm drops the pixels beyond the last whole patch, and says nothing
            if image_shape[1] % height or image_shape[2] % width:
                raise ValueError(
                    f"patches of {height}x{width} of timm model {name!r} do not tile {shape} images. "
                    f"Take +model.options.patch_size=4"
                )
        weight = next(self.parameters())
        self.eval()
        try:
            with torch.no_grad():
                self(weight.new_zeros(1, *image_shape))
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"timm model {name!r} cannot take {shape} images ({error}). Take model=convnet"
            ) from error
        self.train()

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `Network`; the only map is the last one, if the model ends in one and not in tokens."""
        features = self.body.forward_features(x)
        embedding = self.body.forward_head(features, pre_logits=True)
        if not isinstance(features, Tensor) or features.ndim != 4:
            return [], embedding
        channels_last = getattr(self.body, "output_fmt", "NCHW") == "NHWC"  # Swin
        return [features.permute(0, 3, 1, 2) if channels_last else features], embedding
