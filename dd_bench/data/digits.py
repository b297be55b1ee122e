"""Digits: the 1,797 handwritten 8x8 digits included in scikit-learn. Requires no download."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from dd_bench.data.dataset import RealSet, tensor_set
from dd_bench.data.preprocess import fit_preprocess

MEAN, STD = [0.3049], [0.3756]  # of the training split's pixels in [0, 1]


@cache
def stored() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the values in 0..16, `(1797, 64)`, and the labels, `(1797,)`. The text file is parsed once per process."""
    values, labels = load_digits(return_X_y=True)
    for array in (values, labels):
        array.flags.writeable = False
    return values, labels


def digits(*, preprocess: str, val_fraction: float, device: torch.device) -> RealSet:
    """Return 1,352 training and 445 test images, `(1, 8, 8)`, 10 classes.

    The dataset has no official split. Here the 4th, 8th, 12th, ... image of each class, in scikit-learn's order, is a
    test image. A stored value v in 0..16 becomes the pixel `round(v * 255 / 16)`.
    """
    values, target = stored()
    pixels = torch.from_numpy(values * (255 / 16)).round().to(torch.uint8).view(-1, 1, 8, 8)
    labels = torch.tensor(target)
    one_hot = torch.nn.functional.one_hot(labels, 10)
    rank = one_hot.cumsum(0).gather(1, labels[:, None])[:, 0]  # 1 for the first image of its class
    is_test = rank % 4 == 0
    train, test = (pixels[~is_test], labels[~is_test]), (pixels[is_test], labels[is_test])
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
