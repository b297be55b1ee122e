"""Random changes of the colours of an image: brightness, contrast, saturation, and light of another colour.

The light is that of AlexNet (Krizhevsky et al., NeurIPS 2012): a random multiple of each principal component of the
pixels of ImageNet is added to all pixels of an image.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat
from torch import Tensor

from dd_bench.runtime.seeding import generator
from dd_bench.runtime.transfer import constant

CPU = torch.device("cpu")
GREY = (0.299, 0.587, 0.114)
"""Share of red, green and blue in the grey value of a pixel."""
COMPONENTS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
"""Principal components of the pixels of ImageNet in [0, 1], as columns; rows are red, green and blue."""
SPREAD = (0.2175, 0.0188, 0.0045)
"""Standard deviation along each component."""


class ColourRecipe(BaseModel):
    """How much the colours of images change. Images are network inputs, normalised by `mean` and `std`.

    Attributes:
        brightness: largest share of black that is mixed into an image, or taken away from it.
        contrast: the same for the mean grey value of the image.
        saturation: the same for the grey image.
        lighting: standard deviation of the multiple of each component.
        mean: mean of red, green and blue, with which the inputs were normalised.
        std: like mean.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    brightness: float = Field(ge=0, lt=1)
    contrast: float = Field(ge=0, lt=1)
    saturation: float = Field(ge=0, lt=1)
    lighting: float = Field(ge=0)
    mean: tuple[float, float, float]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]


@lru_cache(maxsize=2)
def colour_numbers(n: int, seed: int, epoch: int) -> Tensor:
    """Return the random numbers of an epoch, `(n, 6)` on the CPU: three uniform, three standard normal ones.

    Row i belongs to image i.
    """
    rng = generator(CPU, seed, "colours", epoch)
    return torch.cat([torch.rand(n, 3, generator=rng), torch.randn(n, 3, generator=rng)], 1)


def change_colours(x: Tensor, numbers: Tensor, recipe: ColourRecipe) -> Tensor:
    """Change the colours of images `(n, 3, h, w)` with random numbers `(n, 6)`; differentiable in `x`.

    Pixels are not clamped. Brightness, contrast and saturation commute, because all of them are linear and keep the
    mean grey value up to the factor of the brightness. Their order, which the released code of IDC draws at random, has
    therefore no effect.

    Raises:
        ValueError: the images do not have three channels.
    """
    if x.shape[1] != 3:
        raise ValueError(
            f"views.colour requires images with three channels, got {x.shape[1]}. Use views.colour=null"
        )
    mean, std, grey_share = (
        constant(values, x.device, x.dtype).view(3, 1, 1) for values in (recipe.mean, recipe.std, GREY)
    )
    largest = constant((recipe.brightness, recipe.contrast, recipe.saturation), x.device, x.dtype)
    amounts = (2 * numbers[:, :3].to(x.dtype) - 1) * largest
    black, flat, pale = (amounts[:, i].view(-1, 1, 1, 1) for i in range(3))
    pixels = x * std + mean
    grey = (pixels * grey_share).sum(1, keepdim=True)
    pixels = (1 - pale) * pixels + pale * grey
    pixels = (1 - flat) * pixels + flat * grey.mean((2, 3), keepdim=True)
    multiples = recipe.lighting * numbers[:, 3:].to(x.dtype) * constant(SPREAD, x.device, x.dtype)
    components = constant(sum(COMPONENTS, ()), x.device, x.dtype).view(3, 3)
    light = (multiples @ components.t())[:, :, None, None]
    return ((1 - black) * pixels + light - mean) / std
