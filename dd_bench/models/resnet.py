"""ResNet18 for small images: a 3x3 stem without pooling (He et al., CVPR 2016, section 4.2)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dd_bench.models.layers import choose, make_norm
from dd_bench.models.network import Network, check_map_size

# channels of the four stages, which have two blocks each; all stages except the first halve the map
WIDTHS = (64, 128, 256, 512)


def halved_by_stride(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of the map after a 3x3 convolution of stride 2 and padding 1."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def halved_by_avgpool(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of the map after 2x2 pooling, which drops the last row or column of an odd side."""
    return size[0] // 2, size[1] // 2


HALVED = {"stride": halved_by_stride, "avgpool": halved_by_avgpool}
INITS = ("pytorch", "torchvision")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with norms, added to the shortcut, then ReLU.

    With `halve`, the first convolution or a pooling after its ReLU halves the map, and the shortcut does the same.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        size: tuple[int, int],
        *,
        halve: bool,
        norm: str,
        downsample: str,
    ):
        """Build a block from maps `(n, channels, *size)` to `(n, out, ...)`."""
        super().__init__()
        end = HALVED[downsample](size) if halve else size
        by_stride = halve and downsample == "stride"
        stride, norm1_size = (2, end) if by_stride else (1, size)
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.norm1 = make_norm(norm, out, norm1_size)
        self.pool = nn.AvgPool2d(2) if halve and not by_stride else nn.Identity()
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = make_norm(norm, out, end)
        self.shortcut: nn.Module = nn.Identity()
        if halve:
            conv = nn.Conv2d(channels, out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, self.pool, make_norm(norm, out, end))

    def forward(self, x: Tensor) -> Tensor:
        """Return the map after the last ReLU."""
        y = self.pool(torch.relu(self.norm1(self.conv1(x))))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet18(Network):
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
        shrink = choose("downsample", downsample, HALVED)
        if init not in INITS:
            raise ValueError(f"model.init must be one of {', '.join(INITS)}, got {init}")
        channels, height, width = image_shape
        size = (height, width)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False),
            make_norm(norm, WIDTHS[0], size),
            nn.ReLU(),
        )
        self.blocks = nn.ModuleList()
        channels = WIDTHS[0]
        for out in WIDTHS:
            for i in range(2):
                halve = out != WIDTHS[0] and i == 0
                end = shrink(size) if halve else size
                check_map_size("ResNet18", image_shape, end, norm, "model=resnet18_bn or model=convnet")
                block = BasicBlock(channels, out, size, halve=halve, norm=norm, downsample=downsample)
                self.blocks.append(block)
                channels, size = out, end
        self.pool = nn.AdaptiveAvgPool2d(1) if downsample == "stride" else nn.Identity()
        pixels = 1 if downsample == "stride" else size[0] * size[1]
        self.classifier = nn.Linear(channels * pixels, num_classes)
        if init == "torchvision":
            for module in self.blocks.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `Network`; the maps are the outputs of the eight blocks."""
        maps = []
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps, self.pool(x).flatten(1)
