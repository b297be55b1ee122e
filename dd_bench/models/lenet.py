"""LeNet-5, with ReLU and max pooling (LeCun et al., Proceedings of the IEEE 1998)."""

from __future__ import annotations

from torch import Tensor, nn

from dd_bench.models.network import Network, check_maps, flat


class LeNet(Network):
    """Two 5x5 convolutions (6, 16 channels), each with ReLU and max pooling, then 120, 84 and the classes.

    The first convolution pads one-channel images by 2, and no other, so 28x28 and 3x32x32 both end at 5x5.
    Reference: VICO-UoE/DatasetCondensation@2326d16 networks.py.
    Deviations: other sizes are taken too, from 1x12x12 or 3x16x16; they change the first linear layer.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int):
        """Build the network for images `(c, h, w)`.

        Raises:
            ValueError: images that vanish under the convolutions.
        """
        super().__init__()
        channels, *size = image_shape
        border = 2 if channels == 1 else 0
        height, width = (((side + 2 * border - 4) // 2 - 4) // 2 for side in size)
        check_maps("LeNet", image_shape, (height, width), "none", "model=convnet")
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
        """See `Network`; the embedding is the layer of 84 after its ReLU."""
        maps = []
        for block in self.blocks:
            maps.append(block(x))
            x = self.pool(maps[-1])
        return maps, self.hidden(flat(x))
