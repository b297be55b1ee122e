"""Colour bias: greyscale images in colours that predict the class in training data, but not in test data.

As in Coloured MNIST, each class has a colour, in which most of its training images are shown. A network can learn the
colour instead of the shape. On test images, where the colours are independent of the class, it then fails.
"""

from __future__ import annotations

import colorsys

import torch
from torch import Tensor

from dd_bench.data.dataset import Split
from dd_bench.runtime.seeding import generator


def palette(k: int) -> Tensor:
    """Return `k` colours of equally spaced hues and full saturation, float32 `(k, 3)` in [0, 1]. The first is red."""
    return torch.tensor([colorsys.hsv_to_rgb(i / k, 1.0, 1.0) for i in range(k)])


def biased_colours(labels: Tensor, k: int, bias: float, part: str) -> Tensor:
    """Return the colour of each image, int64 `(n,)` in 0..k-1.

    Of the n_c images of class c, `round(bias * n_c)` have colour c. Each of the others has one of the other k - 1
    colours, all with the same probability. They are drawn with the random stream `("colours", part, c)`.
    """
    classes = labels.cpu()
    colours = classes.clone()
    for c in range(k):
        stream = generator("cpu", 0, "colours", part, c)
        index = (classes == c).nonzero().flatten()
        others = index[torch.randperm(len(index), generator=stream)[round(bias * len(index)) :]]
        colours[others] = (c + torch.randint(1, k, (len(others),), generator=stream)) % k
    return colours.to(labels.device)


def balanced_colours(labels: Tensor, k: int, part: str) -> Tensor:
    """Return a colour for each image, int64 `(n,)`. Each class has every colour equally often, up to one image."""
    classes = labels.cpu()
    colours = classes.clone()
    for c in range(k):
        index = (classes == c).nonzero().flatten()
        order = torch.randperm(len(index), generator=generator("cpu", 0, "colours", part, c))
        colours[index[order]] = (torch.arange(len(index)) + c) % k
    return colours.to(labels.device)


def coloured_pixels(split: Split, colours: Tensor) -> Tensor:
    """Multiply the grey images of a split by their colours `(n,)`. The result is uint8 `(n, 3, h, w)`."""
    rgb = palette(split.num_classes).to(colours.device)[colours][:, :, None, None]
    out = torch.empty(len(split), 3, *split.shape[1:], dtype=torch.uint8, device=colours.device)
    for index in torch.arange(len(split), device=colours.device).split(4096):
        out[index] = (split.pixels(index).float() * rgb[index]).round().to(torch.uint8)
    return out
