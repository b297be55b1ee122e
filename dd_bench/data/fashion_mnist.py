"""Fashion-MNIST: 70,000 greyscale 28x28 images of clothing."""

from __future__ import annotations

from pathlib import Path

import torch

from dd_bench.data.dataset import RealSet, tensor_set
from dd_bench.data.idx import load_idx
from dd_bench.data.preprocess import fit_preprocess

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # installed by the Debian package dataset-fashion-mnist
CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
MEAN, STD = [0.2861], [0.3530]


def fashion_mnist(
    *, root: str | None, download: bool, preprocess: str, val_fraction: float, device: torch.device
) -> RealSet:
    """Return 60,000 training and 10,000 test images, `(1, 28, 28)`, 10 classes.

    The files are read from `root`, or else from the folder of Debian's package. If they are in neither and `download`
    is true, they are downloaded.

    Raises:
        FileNotFoundError: the four IDX files are in none of these folders and `download` is false.
        ValueError: a file is damaged.
    """
    train, test = load_idx(
        "fashion_mnist",
        "FashionMNIST",
        root=root,
        download=download,
        extra_folders=[DEBIAN],
        fixes=["apt-get install dataset-fashion-mnist"],
    )
    return tensor_set(
        "fashion_mnist",
        train,
        test,
        class_names=CLASSES,
        preprocess=fit_preprocess(preprocess, train[0], mean=MEAN, std=STD, device=device),
        flip=True,
        licence="MIT, copyright 2017 Zalando SE",
        citation="Xiao, Rasul and Vollgraf, Fashion-MNIST, arXiv:1708.07747, 2017",
        device=device,
        val_fraction=val_fraction,
    )
