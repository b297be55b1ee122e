"""MNIST: 70,000 greyscale 28x28 images of handwritten digits."""

from __future__ import annotations

import torch

from dd_bench.data.dataset import RealSet, tensor_set
from dd_bench.data.idx import load_idx
from dd_bench.data.preprocess import fit_preprocess

MEAN, STD = [0.1307], [0.3081]


def mnist(
    *, root: str | None, download: bool, preprocess: str, val_fraction: float, device: torch.device
) -> RealSet:
    """Return 60,000 training and 10,000 test images, `(1, 28, 28)`, 10 classes.

    Raises:
        FileNotFoundError: the four IDX files are not in `root` and `download` is false.
        ValueError: a file is damaged.
    """
    train, test = load_idx("mnist", "MNIST", root=root, download=download, extra_folders=[], fixes=[])
    return tensor_set(
        "mnist",
        train,
        test,
        class_names=tuple(str(c) for c in range(10)),
        preprocess=fit_preprocess(preprocess, train[0], mean=MEAN, std=STD, device=device),
        flip=False,
        licence="CC BY-SA 3.0, copyright Yann LeCun and Corinna Cortes",
        citation="LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE, 1998",
        device=device,
        val_fraction=val_fraction,
    )
