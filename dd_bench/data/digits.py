"""Digits: the 1,797 handwritten 8x8 digits that ship inside scikit-learn. Needs no file and no network."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from dd_bench.data.dataset import RealSet, tensor_set
from dd_bench.data.preprocess import fit_preprocess

# Of the training split's pixels in [0, 1].
MEAN, STD = [0.3049], [0.3756]


def digits(*, preprocess: str, val_fraction: float, device: torch.device) -> RealSet:
    """Returns 1,352 training and 445 test images, `(1, 8, 8)`, 10 classes.

    The dataset has no split of its own, so this one is part of its definition here: of each class, in
    scikit-learn's order, every fourth image (the 4th, 8th, ...) is a test image. A stored value v of 0..16
    becomes the pixel `round(v * 255 / 16)`.
    """
    source = load_digits()
    pixels = torch.from_numpy(source.images * (255 / 16)).round().to(torch.uint8)[:, None]  # (1797, 1, 8, 8)
    labels = torch.from_numpy(source.target).long()
    same = torch.nn.functional.one_hot(labels, 10)
    rank = same.cumsum(0).gather(1, labels[:, None])[:, 0]  # 1 for the first image of its class
    held = rank % 4 == 0
    train, test = (pixels[~held], labels[~held]), (pixels[held], labels[held])
    return tensor_set(
        "digits",
        train,
        test,
        class_names=tuple(str(c) for c in range(10)),
        preprocess=fit_preprocess(preprocess, train[0], mean=MEAN, std=STD, device=device),
        flip=False,
        licence="CC BY 4.0 (UCI Machine Learning Repository); copied from scikit-learn",
        citation="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
        device=device,
        val_fraction=val_fraction,
    )
