"""A network: an ordinary `nn.Module`."""

from torch import Tensor, nn


class SmallNet(nn.Module):
    """Two normalised convolutions and a linear layer.

    dd_bench fills in `num_classes` and `in_channels`. `width` is a key of `conf/model/small_net.yaml`.
    """

    def __init__(self, num_classes: int, in_channels: int, width: int):
        """Build the layers."""
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.GroupNorm(1, width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(1, width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(16 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(n, c, h, w)` to logits `(n, k)`."""
        logits: Tensor = self.classifier(self.features(x))
        return logits
