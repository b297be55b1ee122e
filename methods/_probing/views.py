"""Random views of images before a backbone: a crop, a flip and noise, drawn independently for each image."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dd_bench.api import RealSet, ViewRecipe, augment_images


class ProbeViews(BaseModel):
    """The keys of `method.views`.

    Attributes:
        scale: Range of the area of a random resized crop, as a fraction of the image; None disables crops.
        flip: Whether to flip half of the images horizontally, for datasets where a flip preserves the class.
        noise: Probability of adding Gaussian noise to an image.
        noise_mean: Mean of the noise, for pixels in [0, 1].
        noise_std: Standard deviation of the noise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: tuple[float, float] | None
    flip: bool
    noise: float = Field(ge=0, le=1)
    noise_mean: float
    noise_std: float = Field(ge=0)

    def apply(self, pixels: Tensor, real: RealSet, generator: torch.Generator) -> Tensor:
        """Return a view of each image, `(n, c, h, w)`; differentiable in `pixels`.

        Args:
            pixels: images `(n, c, h, w)` in [0, 1].
            real: the dataset, for whether a flip preserves the class.
            generator: on the device of the images.
        """
        flip = self.flip and real.flip
        recipe = ViewRecipe(patches=1, pad=0, scale=self.scale, flip=flip, mix="none", alpha=1.0)
        device = pixels.device
        x = augment_images(pixels, torch.rand(len(pixels), 33, generator=generator, device=device), recipe)
        if not self.noise:
            return x
        chosen = torch.rand(len(x), 1, 1, 1, generator=generator, device=device) < self.noise
        noise = self.noise_mean + self.noise_std * torch.randn(x.shape, generator=generator, device=device)
        return x + chosen * noise
