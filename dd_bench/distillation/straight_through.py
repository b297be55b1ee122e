"""Distillation of quantised images with straight-through gradients, for `method.bits` (QuADD)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dd_bench.synthetic.quantisation import Quantiser, round_images


class StraightThrough:
    """Keeps the images of a method on the levels of a quantiser, and adds its updates to images of full precision.

    The forward pass has the quantised images, and the quantiser has the gradient 1. Each step of the method changes its
    images from `q` to `q + update`. The update is added to the full-precision images `latent`, which are then quantised
    again. For optimisers without weight decay, this equals an optimiser of `latent` with a straight-through quantiser
    in the loss, if the method updates its images once per step.

    Deviations from QuADD (which has no released code): levels are uniform; the clip of an image is its range, computed
    again at each step, not learned.

    Args:
        images: the images of the method, float `(..., c, h, w)`. They are quantised in place.
        bits: bits per value, with one range per image.
    """

    def __init__(self, images: Tensor, bits: int):
        self.images, self.bits = images, bits
        self.latent = images.detach().clone()
        self._round()

    @torch.no_grad()
    def _round(self) -> None:
        flat = self.latent.flatten(0, -4) if self.latent.ndim > 4 else self.latent
        self.images.copy_(round_images(flat, Quantiser(self.bits)).view(self.images.shape))

    @contextmanager
    def step(self) -> Iterator[None]:
        """Add the update of a step of the method to the images of full precision, and quantise them."""
        before = self.images.detach().clone()
        yield
        with torch.no_grad():
            self.latent += self.images - before
            self._round()
