"""AlexNet for small images (Krizhevsky et al., NeurIPS 2012)."""

from __future__ import annotations

from torch import nn

from dd_bench.models.layers import make_norm
from dd_bench.models.network import BlockNetwork, check_map_size

# (channels, kernel, whether 2x2 max pooling follows)
PLAN = ((128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True))


class AlexNet(BlockNetwork):
    """Five convolutions with ReLU and one linear layer. Pooling follows the first, second and last convolution.

    The first convolution pads one-channel images by 4 instead of 2, so its output for a 28x28 image is 32x32.
    Reference: VICO-UoE/DatasetCondensation@2326d16 networks.py (without a norm) and
    DataDistillation/DataDAM@714d91c networks.py (with BatchNorm before each ReLU).
    Deviations: image sizes other than 32x32 are supported. They change the input size of the linear layer.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, *, norm: str):
        """Build the network for images `(c, h, w)`; `norm` is one of `layers.NORMS`.

        Raises:
            ValueError: the norm is unknown, or the images are too small for the poolings.
        """
        super().__init__()
        channels, height, width = image_shape
        if channels == 1:
            height, width = height + 4, width + 4
        self.blocks, self.pools = nn.ModuleList(), nn.ModuleList()
        for i, (out, kernel, pooled) in enumerate(PLAN):
            check_map_size("AlexNet", image_shape, (height, width), norm, "model=convnet")
            border = kernel // 2 + (2 if channels == 1 and i == 0 else 0)
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(channels, out, kernel, padding=border),
                    make_norm(norm, out, (height, width)),
                    nn.ReLU(),
                )
            )
            self.pools.append(nn.MaxPool2d(2) if pooled else nn.Identity())
            channels = out
            if pooled:
                height, width = height // 2, width // 2
        check_map_size("AlexNet", image_shape, (height, width), "none", "model=convnet")
        self.classifier = nn.Linear(channels * height * width, num_classes)
