"""Basic blocks and their four stages, the common part of all residual networks here (He et al., CVPR 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dd_bench.models.layers import choose, make_norm
from dd_bench.models.network import Network, check_map_size

# channels of the four stages; all stages except the first halve the map
WIDTHS = (64, 128, 256, 512)


def halved_by_stride(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of the map after a 3x3 convolution of stride 2 and padding 1."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def halved_by_avgpool(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of the map after 2x2 pooling, which drops the last row or column of an odd side."""
    return size[0] // 2, size[1] // 2


HALVED = {"stride": halved_by_stride, "avgpool": halved_by_avgpool}


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


class ResidualNetwork(Network):
    """A stem, four stages of basic blocks, pooling and one linear layer. Subclasses build these parts."""

    stem: nn.Module
    blocks: nn.ModuleList
    pool: nn.Module

    def stages(
        self,
        image_shape: tuple[int, int, int],
        size: tuple[int, int],
        *,
        per_stage: int,
        norm: str,
        downsample: str,
        alternative: str,
    ) -> tuple[int, int]:
        """Build the blocks, and return the size of the last map. All stages except the first halve the map.

        Args:
            image_shape: shape of the images `(c, h, w)`, for the error message.
            size: size of the map after the stem, which has `WIDTHS[0]` channels.
            per_stage: number of blocks of each stage.
            norm: one of `layers.NORMS`.
            downsample: "stride" or "avgpool".
            alternative: networks for smaller images, for the error message.

        Raises:
            ValueError: `downsample` is unknown, or the images are too small.
        """
        shrink = choose("downsample", downsample, HALVED)
        self.blocks = nn.ModuleList()
        channels = WIDTHS[0]
        for out in WIDTHS:
            for i in range(per_stage):
                halve = out != WIDTHS[0] and i == 0
                end = shrink(size) if halve else size
                check_map_size(type(self).__name__, image_shape, end, norm, alternative)
                block = BasicBlock(channels, out, size, halve=halve, norm=norm, downsample=downsample)
                self.blocks.append(block)
                channels, size = out, end
        return size

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `Network`; the maps are the outputs of the blocks."""
        maps = []
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps, self.pool(x).flatten(1)


def init_by_fan_out(module: nn.Module) -> None:
    """Draw the weights of all convolutions from N(0, 2 / fan_out), as torchvision does."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
