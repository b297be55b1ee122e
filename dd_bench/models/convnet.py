"""ConvNet, the network used in nearly every distillation paper (Gidaris & Komodakis, CVPR 2018)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from dd_bench.models.layers import choose, make_norm
from dd_bench.models.network import Network, check_map_size

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
    """Return the depth that the papers use for images `(c, h, w)`, which depends on the smaller side.

    It is 3 up to 32 pixels, 4 up to 64, 5 up to 128, and 6 above. At 32, 64, 128 and 256 pixels, the last map is 4x4.
    """
    side = min(image_shape[1:])
    return 3 if side <= 32 else 4 if side <= 64 else 5 if side <= 128 else 6


class ConvNet(Network):
    """`depth` blocks of 3x3 convolution, norm, activation and 2x2 pooling; then one linear layer.

    The first convolution pads one-channel images by 3 instead of 1, so its output for a 28x28 image is 32x32. As in the
    reference, this padding does not depend on the image size, so the output is 4 pixels larger for every image size.
    Reference: VICO-UoE/DatasetCondensation@2326d16 networks.py.
    The network has 320,010 parameters at width 128 on 3x32x32 images with 10 classes.
    The 720 networks of the architecture search (DC, DM, DataDAM) combine widths 32, 64, 128 and 256, depths 1 to 4,
    the five norms, the activations sigmoid, relu and leakyrelu, and the three poolings.
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
            depth: number of blocks; None: `default_depth` of the images.
            width: number of channels of every block.
            norm: one of `layers.NORMS`.
            activation: one of `ACTIVATIONS`.
            pooling: one of `POOLINGS`; with "none" the size does not change, so the classifier is larger.

        Raises:
            ValueError: a choice is unknown, `depth` is < 1, or the images are too small for the poolings.
        """
        super().__init__()
        depth = default_depth(image_shape) if depth is None else depth
        if depth < 1:
            raise ValueError(f"model.depth must be >= 1, got {depth}. Example: model.depth=3")
        channels, *size = image_shape
        border = 3 if channels == 1 else 1
        map_height, map_width = (side + 2 * border - 2 for side in size)  # of the first map
        # after this number of poolings, at least one pixel is left
        max_depth = min(map_height, map_width).bit_length() - 1
        alternative = f"model.depth={max_depth}" if max_depth else "model=mlp"

        self.blocks = nn.ModuleList()
        self.pool = choose("pooling", pooling, POOLINGS)()
        for _ in range(depth):
            check_map_size("ConvNet", image_shape, (map_height, map_width), norm, alternative)
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(channels, width, 3, padding=border),
                    make_norm(norm, width, (map_height, map_width)),
                    choose("activation", activation, ACTIVATIONS)(),
                )
            )
            channels, border = width, 1
            if pooling != "none":
                map_height, map_width = map_height // 2, map_width // 2
        check_map_size("ConvNet", image_shape, (map_height, map_width), "none", alternative)
        self.classifier = nn.Linear(width * map_height * map_width, num_classes)

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `Network`; the embedding is the flattened output of the last pooling."""
        maps = []
        for block in self.blocks:
            maps.append(block(x))
            x = self.pool(maps[-1])
        return maps, x.flatten(1)
