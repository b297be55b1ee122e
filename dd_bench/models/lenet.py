"""LeNet-5, with ReLU and max pooling (LeCun et al., Proceedings of the IEEE 1998)."""

from __future__ import annotations

from torch import Tensor, nn

from dd_bench.models.network import Network, check_map_size


class LeNet(Network):
    """Two 5x5 convolutions (6 and 16 channels), each with ReLU and max pooling, then linear layers of 120, 84 and k.

    The first convolution pads only one-channel images, by 2, so the last map of 1x28x28 and of 3x32x32 is 5x5.
    Reference: VICO-UoE/DatasetCondensation@2326d16 networks.py.
    Deviations: other sizes, of at least 1x12x12 or 3x16x16, are supported. They change the first linear layer.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int):
        """Build the network for images `(c, h, w)`.

        Raises:
            ValueError: the images are too small for the convolutions and poolings.
        """
        super().__init__()
        channels, *size = image_shape
        border = 2 if channels == 1 else 0
        height, width = (((side + 2 * border - 4) // 2 - 4) // 2 for side in size)
        check_map_size("LeNet", image_shape, (height, width), "none", "model=convnet")
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(channels, 6, 5, padding=border), nn.ReLU()),
                nn.Sequential(nn.Conv2d(6, 16, 5), nn.ReLU()),
            ]
        )
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Sequential(
            nn.Linear(16 * height * width, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()
        )
        self.classifier = nn.Linear(84, num_classes)

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `Network`; the embedding is the layer of 84 units after its ReLU."""
        maps = []
        for block in self.blocks:
            maps.append(block(x))
            x = self.pool(maps[-1])
        return maps, self.hidden(x.flatten(1))
