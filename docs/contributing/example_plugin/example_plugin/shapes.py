"""A dataset: grey images of four shapes, drawn with NumPy."""

import numpy as np
import torch
from torch import Tensor

from dd_bench.api import RealSet, channel_statistics, fit_preprocess, tensor_set

CLASSES = ("disc", "square", "triangle", "cross")
SIZE = 16


def shapes(
    *, per_class: int, noise: float, seed: int, preprocess: str, val_fraction: float, device: torch.device
) -> RealSet:
    """Return `per_class` training images and half as many test images of each class, `(1, 16, 16)`.

    The arguments are the keys of `conf/dataset/shapes.yaml`, and the device of the run.
    """
    rng = np.random.default_rng(seed)
    train, test = (draw(count, noise, rng) for count in (per_class, per_class // 2))
    mean, std = channel_statistics(train[0])
    return tensor_set(
        "shapes",
        train,
        test,
        class_names=CLASSES,
        preprocess=fit_preprocess(preprocess, train[0], mean=mean, std=std, device=device),
        flip=True,
        licence="CC0-1.0",
        citation="Example of the dd_bench documentation",
        device=device,
        val_fraction=val_fraction,
    )


def draw(count: int, noise: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw `count` images of each class, with random position, size, brightness and Gaussian noise.

    Returns:
        Images, uint8 `(4 * count, 1, 16, 16)`, and labels, int64 `(4 * count,)`.
    """
    n = len(CLASSES) * count
    labels = np.repeat(np.arange(len(CLASSES)), count)
    y, x = np.mgrid[:SIZE, :SIZE]
    centre = rng.uniform(5.5, 9.5, (2, n, 1, 1))
    radius = rng.uniform(3.0, 5.0, (n, 1, 1))
    u, v = abs(x - centre[0]) / radius, (y - centre[1]) / radius  # the shapes are symmetric in x
    inside = np.select(
        [labels[:, None, None] == c for c in range(len(CLASSES))],
        [
            u**2 + v**2 <= 1,
            np.maximum(u, abs(v)) <= 0.85,
            (u <= (v + 1) / 2) & (abs(v) <= 1),
            (np.minimum(u, abs(v)) <= 0.3) & (np.maximum(u, abs(v)) <= 1),
        ],
    )
    pixels = inside * rng.uniform(100, 255, (n, 1, 1)) + noise * rng.standard_normal((n, SIZE, SIZE))
    images = pixels.round().clip(0, 255).astype(np.uint8)[:, None]
    return torch.from_numpy(images), torch.from_numpy(labels)
