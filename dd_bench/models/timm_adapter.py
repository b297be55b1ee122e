"""Any architecture of timm (Wightman, PyTorch Image Models) as a `Network`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import timm
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from dd_bench.models.network import Network


class TimmNet(Network):
    """A timm model whose last linear layer is the classifier of the `Network`.

    Most models are designed for 224x224 pixels. For 32x32 pixels, the last map of `resnet18` is 1x1. Models with a
    fixed image size (ViT, Swin, Mixer) are created for the size of the images. In train mode, dropout and stochastic
    depth use the global generator.
    """

    later_knobs: ClassVar[dict[str, Any]] = {"file": None}
    file_knobs: ClassVar[tuple[str, ...]] = ("file",)

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        name: str,
        pretrained: bool,
        drop_rate: float,
        options: Mapping[str, Any],
        file: str | None = None,
    ):
        """Build the network for images `(c, h, w)` and check it with one blank image.

        Args:
            name: a name in `timm.list_models()`, with or without the tag of pretrained weights.
            pretrained: whether to download weights. timm adapts the first convolution to the number of channels.
            drop_rate: dropout probability before the classifier.
            options: further arguments of `timm.create_model`, e.g. `{patch_size: 4}` for a ViT.
            file: local file of the pretrained weights, for machines without internet; None to download them.

        Raises:
            FileNotFoundError: `file` does not exist.
            OSError: the weights cannot be downloaded.
            ValueError: `file` is given without `pretrained`, the name is unknown, the model does not end in a linear
                layer, or it does not accept the images.
        """
        super().__init__()
        if not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.3)
            raise ValueError(
                f"timm has no model {name!r}. Similar names: {', '.join(near)}. Use model.name=NAME"
            )
        channels, height, width = image_shape
        config = timm.get_pretrained_cfg(name)
        fixed = config is not None and config.fixed_input_size
        size: dict[str, Any] = {"img_size": (height, width)} if fixed else {}
        weights = _pretrained(name, pretrained, file)
        with _download_errors(name, config):
            body: Any = timm.create_model(
                name,
                in_chans=channels,
                num_classes=num_classes,
                drop_rate=drop_rate,
                **weights,
                **size,
                **options,
            )
        classifier = body.get_classifier()
        if not isinstance(classifier, nn.Linear):
            kind = type(classifier).__name__
            raise ValueError(
                f"timm model {name!r} must end in one linear layer, got a {kind}. Use model.name=resnet18"
            )
        body.reset_classifier(0)  # otherwise its weights would be registered twice
        self.body = body
        self.classifier = classifier
        self._check_size(name, image_shape)

    def _check_size(self, name: str, image_shape: tuple[int, int, int]) -> None:
        shape = f"{image_shape[1]}x{image_shape[2]}"
        patches = getattr(self.body, "patch_embed", None)
        if isinstance(patches, PatchEmbed):
            height, width = patches.patch_size
            # timm silently drops the pixels after the last complete patch
            if image_shape[1] % height or image_shape[2] % width:
                raise ValueError(
                    f"the patch size {height}x{width} of timm model {name!r} does not divide {shape} images. "
                    "Use +model.options.patch_size=4"
                )
        weight = next(self.parameters())
        self.eval()
        try:
            with torch.no_grad():
                self(weight.new_zeros(1, *image_shape))
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"timm model {name!r} does not accept {shape} images ({error}). Use model=convnet"
            ) from error
        self.train()

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `Network`; the only map is the last one, if the features of the model are a map and not tokens."""
        features = self.body.forward_features(x)
        embedding = self.body.forward_head(features, pre_logits=True)
        if not isinstance(features, Tensor) or features.ndim != 4:
            return [], embedding
        channels_last = getattr(self.body, "output_fmt", "NCHW") == "NHWC"  # Swin
        return [features.permute(0, 3, 1, 2) if channels_last else features], embedding


def _pretrained(name: str, pretrained: bool, file: str | None) -> dict[str, Any]:
    """Return the arguments of `timm.create_model` that select the weights."""
    if file is None:
        return {"pretrained": pretrained}
    if not pretrained:
        raise ValueError(
            f"the weights in {file} are used only with pretrained=true, got pretrained=false for timm model {name!r}. "
            "Use model.pretrained=true, or teachers.NAME.model.pretrained=true for a teacher"
        )
    if not Path(file).is_file():
        raise FileNotFoundError(
            f"the file of the weights of timm model {name!r} does not exist: {file}. "
            "Use model.file=PATH, or teachers.NAME.model.file=PATH for a teacher"
        )
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": file}}


@contextmanager
def _download_errors(name: str, config: Any) -> Iterator[None]:
    """Replace an error while weights are downloaded by one with the commands for a machine without internet."""
    try:
        yield
    except (HfHubHTTPError, LocalEntryNotFoundError, ConnectionError) as error:
        source = getattr(config, "hf_hub_id", None) or f"timm/{name}"
        raise OSError(
            f"the pretrained weights of timm model {name!r} could not be downloaded ({type(error).__name__}). Download "
            f"them on a machine with internet: hf download {source} model.safetensors --local-dir weights. "
            "Then use model.file=weights/model.safetensors, or teachers.NAME.model.file=... for a teacher"
        ) from error
