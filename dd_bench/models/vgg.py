"""VGG11 with a norm after every convolution, and one linear layer (Simonyan & Zisserman, ICLR 2015)."""

from __future__ import annotations

from torch import nn

from dd_bench.models.layers import make_norm
from dd_bench.models.network import BlockNetwork, check_map_size

# (channels, whether 2x2 max pooling follows)
PLAN = (
    (64, True),
    (128, True),
    (256, False),
    (256, True),
    (512, False),
    (512, True),
    (512, False),
    (512, True),
)


class VGG11(BlockNetwork):
    """Eight 3x3 convolutions, each with norm and ReLU, and five poolings; then one linear layer.

    The first convolution pads one-channel images by 3 instead of 1, so its output for a 28x28 image is 32x32.
    Reference: VICO-UoE/DatasetCondensation@2326d16 networks.py: VGG11 (InstanceNorm) and VGG11BN (BatchNorm).
    Deviations: larger images are supported. They change the input size of the linear layer: for 3x64x64 images, the
    last map is 2x2. Because of the five poolings, one-channel images need at least 28 pixels per side, and other images
    at least 32.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, *, norm: str):
        """Build the network for images `(c, h, w)`; `norm` is one of `layers.NORMS`.

        Raises:
            ValueError: the norm is unknown, or the images are too small for the poolings.
        """
        super().__init__()
        channels, height, width = image_shape
        border = 3 if channels == 1 else 1
        height, width = height + 2 * border - 2, width + 2 * border - 2
        self.blocks, self.pools = nn.ModuleList(), nn.ModuleList()
        for out, pooled in PLAN:
            check_map_size("VGG11", image_shape, (height, width), norm, "model=convnet")
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(channels, out, 3, padding=border),
                    make_norm(norm, out, (height, width)),
                    nn.ReLU(),
                )
            )
            self.pools.append(nn.MaxPool2d(2) if pooled else nn.Identity())
            channels, border = out, 1
            if pooled:
                height, width = height // 2, width // 2
        check_map_size("VGG11", image_shape, (height, width), "none", "model=convnet")
        self.classifier = nn.Linear(channels * height * width, num_classes)
