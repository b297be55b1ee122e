"""SVHN in the cropped-digits format: 32x32 colour images of house-number digits, without the `extra` images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet, tensor_set
from dd_bench.data.locate import base_folder, downloading, not_found, verify_files
from dd_bench.data.preprocess import fit_preprocess

if TYPE_CHECKING:
    from torchvision.datasets import SVHN

FILES = ("train_32x32.mat", "test_32x32.mat")
MEAN, STD = [0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970]


def svhn(
    *, root: str | None, download: bool, preprocess: str, val_fraction: float, device: torch.device
) -> RealSet:
    """Return 73,257 training and 26,032 test images, `(3, 32, 32)`, 10 classes of different sizes.

    Label c is the digit c. torchvision reads `root/{train,test}_32x32.mat` after the md5 of both files is verified.

    Raises:
        FileNotFoundError: a file is missing and `download` is false.
        ValueError: a file is damaged.
    """
    folder, fixes = base_folder(root), ["dataset.root=FOLDER", "dataset.download=true"]
    missing = next((f for f in FILES if not (folder / f).is_file()), None)
    if missing is not None and not download:
        raise not_found("svhn", missing, [folder], fixes)
    from torchvision import datasets  # the import takes seconds

    files = [(file, md5) for _, file, md5 in (datasets.SVHN.split_list[split] for split in ("train", "test"))]
    if not download:
        verify_files("svhn", folder, files, fixes)
    url = "http://ufldl.stanford.edu/housenumbers/ (train_32x32.mat and test_32x32.mat)"
    with downloading("svhn", url, folder, "the folder that contains both files"):
        train, test = (
            _tensors(datasets.SVHN(str(folder), split, download=download)) for split in ("train", "test")
        )
    return tensor_set(
        "svhn",
        train,
        test,
        class_names=tuple(str(c) for c in range(10)),
        preprocess=fit_preprocess(preprocess, train[0], mean=MEAN, std=STD, device=device),
        flip=False,
        licence="for non-commercial use only",
        citation="Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning, 2011",
        device=device,
        val_fraction=val_fraction,
    )


def _tensors(split: SVHN) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(split.data).contiguous(), torch.from_numpy(split.labels)
