"""ConvNet: the network that nearly every distillation paper distils with (Gidaris & Komodakis, CVPR 2018)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from dd_bench.models.layers import choose, make_norm
from dd_bench.models.network import Network, check_maps, flat

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,  # slope 0.01
    "swish": nn.SiLU,
}
POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "max": lambda: nn.MaxPool2d(2),
    "avg": lambda: nn.AvgPool2d(2),
}


def default_depth(image_shape: tuple[int, int, int]) -> int:
    """Return the depth at which the papers use a ConvNet on `(c, h, w)`, by the smaller side.

    Up to 32 pixels 3, up to 64 4, up to 128 5, beyond 6: the last map is 4x4 at 32, 64, 128 and 256 pixels.
    """
    side = min(image_shape[1:])
    return 3 if side <= 32 else 4 if side <= 64 else 5 if side <= 128 else 6


class ConvNet(Network):
    """`depth` blocks of 3x3 convolution, norm, activation, 2x2 pooling; then one linear layer.

    The first convolution of a one-channel image pads by 3 instead of 1, so that 28x28 goes on as 32x32. The
    rule is the reference's, and goes by the channels: any one-channel image grows by 4 pixels.
    Reference: VICO-UoE/DatasetCondensation@2326d16 networks.py.
    Parameters at width 128 on 3x32x32 with 10 classes: 320,010.
    The 720 networks of the architecture search (DC, DM, DataDAM): widths 32, 64, 128, 256, depths 1 to 4, the
    five norms, sigmoid, relu and leakyrelu, the three poolings.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        depth: int | None,
        width: int,
        norm: str,
        activation: str,
        pooling: str,
    ):
        """Build the network for images `(c, h, w)`.

        Args:
            depth: number of blocks; None goes by the size of the images, see `default_depth`.
            width: channels of every block.
            norm: one of `layers.NORMS`.
            activation: one of `ACTIVATIONS`.
            pooling: one of `POOLINGS`; "none" keeps the size, so the classifier grows.

        Raises:
            ValueError: an unknown choice, no block at all, or images that vanish under the pooling.
        """
        super().__init__()
        depth = default_depth(image_shape) if depth is None else depth
        if depth < 1:
            raise ValueError(f"a ConvNet has at least one block, got model.depth={depth}")
        channels, *size = image_shape
        border = 3 if channels == 1 else 1
        height, across = (side + 2 * border - 2 for side in size)  # of the first map
        deepest = min(height, across).bit_length() - 1  # halvings that leave a pixel
        take = f"model.depth={deepest}" if deepest else "model=mlp"

        self.blocks = nn.ModuleList()
        self.pool = choose("pooling", pooling, POOLINGS)()
        for _ in range(depth):
            check_maps("ConvNet", image_shape, (height, across), norm, take)
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(channels, width, 3, padding=border),
                    make_norm(norm, width, (height, across)),
                    choose("activation", activation, ACTIVATIONS)(),
                )
            )
            channels, border = width, 1
            if pooling != "none":
                height, across = height // 2, across // 2
        check_maps("ConvNet", image_shape, (height, across), "none", take)
        self.classifier = nn.Linear(width * height * across, num_classes)

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `Network`; the embedding is the flattened output of the last pooling."""
        maps = []
        for block in self.blocks:
            maps.append(block(x))
            x = self.pool(maps[-1])
        return maps, flat(x)
