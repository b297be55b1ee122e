"""CIFAR-10 and CIFAR-100: 60,000 natural 32x32 colour images each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision import datasets

from dd_bench.data.dataset import RealSet, tensor_set
from dd_bench.data.locate import base_folder, verify_files
from dd_bench.data.preprocess import fit_preprocess

CIFAR10_MEAN, CIFAR10_STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]


def cifar10(
    *, root: str | None, download: bool, preprocess: str, val_fraction: float, device: torch.device
) -> RealSet:
    """Return 50,000 training and 10,000 test images, `(3, 32, 32)`, 10 classes.

    The published files are pickles, and unpickling can run arbitrary code. torchvision therefore opens a file only
    after it has compared the file's md5 with the value in its own source code. This also holds for `cifar100`.

    Raises:
        FileNotFoundError: a file of `root/cifar-10-batches-py` is missing and `download` is false.
        ValueError: a file is damaged.
    """
    return _cifar(
        "cifar10",
        datasets.CIFAR10,
        root,
        download,
        preprocess,
        CIFAR10_MEAN,
        CIFAR10_STD,
        val_fraction,
        device,
    )


def cifar100(
    *,
    root: str | None,
    download: bool,
    preprocess: str,
    mean: Sequence[float],
    std: Sequence[float],
    val_fraction: float,
    device: torch.device,
) -> RealSet:
    """Return 50,000 training and 10,000 test images, `(3, 32, 32)`, 100 (fine) classes.

    `mean` and `std` are arguments because the papers differ: DC, DSA, DM and DataDAM normalise with the statistics of
    CIFAR-100; the code of MTT, FTD, TESLA, DATM and NCFM normalises with the statistics of CIFAR-10.

    Raises:
        FileNotFoundError: a file of `root/cifar-100-python` is missing and `download` is false.
        ValueError: a file is damaged.
    """
    return _cifar("cifar100", datasets.CIFAR100, root, download, preprocess, mean, std, val_fraction, device)


def _cifar(
    name: str,
    dataset: type[datasets.CIFAR10],
    root: str | None,
    download: bool,
    preprocess: str,
    mean: Sequence[float],
    std: Sequence[float],
    val_fraction: float,
    device: torch.device,
) -> RealSet:
    folder = base_folder(root)
    files = [*dataset.train_list, *dataset.test_list, (dataset.meta["filename"], dataset.meta["md5"])]
    if not download:
        verify_files(
            name, folder / dataset.base_folder, files, ["dataset.root=FOLDER", "dataset.download=true"]
        )
    splits = [dataset(str(folder), train=is_train, download=download) for is_train in (True, False)]
    train, test = (_tensors(split) for split in splits)
    return tensor_set(
        name,
        train,
        test,
        class_names=tuple(splits[0].classes),
        preprocess=fit_preprocess(preprocess, train[0], mean=mean, std=std, device=device),
        flip=True,
        licence="none stated; the publisher asks for the citation",
        citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        device=device,
        val_fraction=val_fraction,
    )


def _tensors(split: datasets.CIFAR10) -> tuple[Tensor, Tensor]:
    pixels = torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous()  # torchvision stores (n, h, w, c)
    return pixels, torch.tensor(split.targets)
