"""MLP: fully connected layers on the flattened image."""

from __future__ import annotations

import math

from torch import Tensor, nn

from dd_bench.models.network import Network


class MLP(Network):
    """`depth` hidden layers of `width` units with ReLU, then the classifier.

    Reference: VICO-UoE/DatasetCondensation@2326d16 networks.py, two hidden layers of 128 units.
    Deviations: any image size; the reference supports only 1x28x28 and 3x32x32.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, *, width: int, depth: int):
        """Build the network for images `(c, h, w)`; `depth` counts the hidden layers.

        Raises:
            ValueError: `depth` is < 1.
        """
        super().__init__()
        if depth < 1:
            raise ValueError(f"model.depth must be >= 1, got {depth}. Example: model.depth=3")
        sizes = [math.prod(image_shape), *[width] * depth]
        self.hidden = nn.Sequential()
        for i in range(depth):
            self.hidden.extend([nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU()])
        self.classifier = nn.Linear(width, num_classes)

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `Network`; there are no maps, and the embedding is the last hidden layer after its ReLU."""
        return [], self.hidden(x.flatten(1))
