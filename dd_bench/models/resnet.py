"""ResNet18 for small images: a 3x3 stem without pooling (He et al., CVPR 2016, section 4.2)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from dd_bench.models.layers import make_norm
from dd_bench.models.residual import WIDTHS, ResidualNetwork, init_by_fan_out

INITS = ("pytorch", "torchvision")


class ResNet18(ResidualNetwork):
    """A 3x3 stem of stride 1, four stages of two basic blocks, global average pooling, one linear layer.

    With `downsample="avgpool"` (ResNet18_AP), 2x2 average pooling halves the maps instead of strided convolutions, and
    there is no global pooling: the input of the classifier is 512x4x4 for 3x32x32 images and 512x3x3 for 1x28x28.
    Reference: VICO-UoE/DatasetCondensation@2326d16 networks.py: ResNet18 (InstanceNorm) and ResNet18BN (BatchNorm).
    Their weights have PyTorch's default distribution (`init="pytorch"`). The code of SRe2L, CDA, INFER and RDED uses
    the ResNet of torchvision with a new stem (`init="torchvision"`): the convolutions of the blocks have weights from
    N(0, 2 / fan_out), 2.45 times larger if fan_in = fan_out. The stem has PyTorch's default.
    Deviations: the mean is over the whole last map instead of over 4x4, which is the same up to 32 pixels. For 224
    pixels, use model=timm model.name=resnet18, whose stem reduces the size.
    """

    later_knobs: ClassVar[dict[str, Any]] = {"init": "pytorch"}

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        norm: str,
        downsample: str,
        init: str = "pytorch",
    ):
        """Build the network for images `(c, h, w)`.

        Args:
            norm: one of `layers.NORMS`; the reference uses instancenorm and batchnorm.
            downsample: "stride" or "avgpool".
            init: distribution of the initial weights, "pytorch" or "torchvision".

        Raises:
            ValueError: a choice is unknown, or the images are too small. InstanceNorm needs a last map larger than 1x1.
        """
        super().__init__()
        if init not in INITS:
            raise ValueError(f"model.init must be one of {', '.join(INITS)}, got {init}")
        channels, *_ = image_shape
        size = image_shape[1:]
        self.stem = nn.Sequential(
            nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False),
            make_norm(norm, WIDTHS[0], size),
            nn.ReLU(),
        )
        last = self.stages(
            image_shape, size, per_stage=2, norm=norm, downsample=downsample,
            alternative="model=resnet18_bn or model=convnet",
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d(1) if downsample == "stride" else nn.Identity()
        pixels = 1 if downsample == "stride" else last[0] * last[1]
        self.classifier = nn.Linear(WIDTHS[-1] * pixels, num_classes)
        if init == "torchvision":
            init_by_fan_out(self.blocks)
