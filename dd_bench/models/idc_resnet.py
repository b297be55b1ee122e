"""The residual networks of IDC, with a stem for small, medium or large images (Kim et al., ICML 2022)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import nn

from dd_bench.models.layers import choose, make_norm
from dd_bench.models.residual import HALVED, WIDTHS, ResidualNetwork, init_by_fan_out

BLOCKS = {10: 1, 18: 2}
"""Number of blocks of each stage, by depth."""


class Reduction(NamedTuple):
    """How the stem reduces the map: stride of its convolution, and the pooling after it."""

    stride: int
    pool: Callable[[], nn.Module]
    ratio: int


STEMS: Mapping[str, Mapping[str, Reduction]] = {
    "stride": {
        "medium": Reduction(1, lambda: nn.MaxPool2d(3, 2, padding=1), 2),
        "large": Reduction(2, lambda: nn.MaxPool2d(3, 2, padding=1), 4),
    },
    "avgpool": {
        "medium": Reduction(1, lambda: nn.AvgPool2d(2), 2),
        "large": Reduction(1, lambda: nn.AvgPool2d(4), 4),
    },
}
SMALL = Reduction(1, nn.Identity, 1)


class IDCResNet(ResidualNetwork):
    """A stem, four stages of basic blocks with 64 to 512 channels, global average pooling, and one linear layer.

    With `downsample="avgpool"` and depth 10 it is ResNetAP-10, which has average pooling instead of strided
    convolutions; with `downsample="stride"` and depth 18 it is ResNet-18. The stem depends on the smaller side:

    - up to 64 pixels: a 3x3 convolution.
    - up to 128 pixels: a 3x3 convolution and a pooling that halves the map.
    - above: a 7x7 convolution and a pooling, which reduce the map to a quarter.

    Weights of convolutions are from N(0, 2 / fan_out). ResNetAP-10 has 4,910,922 parameters at 10 classes, for images
    above 128 pixels.
    Source: the evaluation of IDC and of Minimax Diffusion (Gu et al., CVPR 2024),
    vimar-gu/MinimaxDiffusion@969fc6f train_models/resnet_ap.py and resnet.py. Deviations: none are known for square
    images. The released code has narrower networks for CIFAR, which are not part of this class.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        depth: int,
        norm: str,
        downsample: str,
    ):
        """Build the network for images `(c, h, w)`.

        Args:
            depth: 10 or 18.
            norm: one of `layers.NORMS`; the papers use instancenorm.
            downsample: "stride" or "avgpool".

        Raises:
            ValueError: a choice is unknown, or the images are too small.
        """
        super().__init__()
        if depth not in BLOCKS:
            raise ValueError(
                f"model.depth must be one of {', '.join(map(str, BLOCKS))}, got {depth}. Example: model.depth=18"
            )
        choose("downsample", downsample, HALVED)
        channels, height, width = image_shape
        side = min(height, width)
        large = side > 128
        reduction = SMALL if side <= 64 else STEMS[downsample]["large" if large else "medium"]
        kernel = 7 if large else 3
        size = (-(-height // reduction.stride), -(-width // reduction.stride))
        self.stem = nn.Sequential(
            nn.Conv2d(channels, WIDTHS[0], kernel, reduction.stride, padding=kernel // 2, bias=False),
            make_norm(norm, WIDTHS[0], size),
            nn.ReLU(),
            reduction.pool(),
        )
        rounded = -(-height // reduction.ratio), -(-width // reduction.ratio)
        size = rounded if downsample == "stride" else (height // reduction.ratio, width // reduction.ratio)
        self.stages(
            image_shape,
            size,
            per_stage=BLOCKS[depth],
            norm=norm,
            downsample=downsample,
            alternative="model=convnet",
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(WIDTHS[-1], num_classes)
        init_by_fan_out(self)
