"""CIFAR-10 and CIFAR-100: 60,000 natural 32x32 colour images each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dd_bench.data.cifar_copies import Arrays, BinaryVersion, Copy, read_copy
from dd_bench.data.dataset import RealSet, tensor_set
from dd_bench.data.locate import base_folder, downloading, not_found, verify_files
from dd_bench.data.preprocess import fit_preprocess

CIFAR10_MEAN, CIFAR10_STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]


if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

PICKLES = {"cifar10": ("cifar-10-batches-py", "data_batch_1"), "cifar100": ("cifar-100-python", "train")}
"""Folder of the published files of each dataset, and the first of these files."""
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_BINARY = BinaryVersion(
    "cifar-10-batches-bin",
    (
        ("data_batch_1.bin", "aadd24acce27caa71bf4b10992e9e7b2d74c2540"),
        ("data_batch_2.bin", "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795"),
        ("data_batch_3.bin", "1dd00a74ab1d17a6e7d73e185b69dbf31242f295"),
        ("data_batch_4.bin", "aab85764eb3584312d3c7f65fd2fd016e36a258e"),
        ("data_batch_5.bin", "26e2849e66a845b7f1e4614ae70f4889ae604628"),
    ),
    (("test_batch.bin", "67eb016db431130d61cd03c7ad570b013799c88c"),),
    label_bytes=1,
    names_file="batches.meta.txt",
)
CIFAR100_BINARY = BinaryVersion(
    "cifar-100-binary",
    (("train.bin", "e207cd2e05b73b1393c74c7f5e7bea451d63e08e"),),
    (("test.bin", "8fb6623e830365ff53cf14adec797474f5478006"),),
    label_bytes=2,  # the coarse and the fine label
    names_file="fine_label_names.txt",
)
# The sha1 values are those of Apache MXNet, mxnet/gluon/data/vision/datasets.py.


def cifar10(
    *, root: str | None, download: bool, preprocess: str, val_fraction: float, device: torch.device
) -> RealSet:
    """Return 50,000 training and 10,000 test images, `(3, 32, 32)`, 10 classes.

    The published files are pickles, and unpickling can run arbitrary code. torchvision therefore opens a file only
    after it has compared the file's md5 with the value in its own source code. This also holds for `cifar100`.

    Other copies give the same dataset, if they have the published pixels, labels and order: the binary version, and
    lossless images `root/{train,test}/<class>/<index>.png`, where the index is the position of the image in the
    published training or test split.

    Raises:
        FileNotFoundError: `root` contains no copy and `download` is false, or the download failed.
        ValueError: a file is damaged, or a copy differs from the published data.
    """
    return _cifar(
        "cifar10",
        CIFAR10_BINARY,
        CIFAR10_CLASSES,
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
        FileNotFoundError: `root` contains neither `cifar-100-python` nor `cifar-100-binary` and `download` is false, or
            the download failed.
        ValueError: a file is damaged.
    """
    return _cifar(
        "cifar100",
        CIFAR100_BINARY,
        (),
        root,
        download,
        preprocess,
        mean,
        std,
        val_fraction,
        device,
    )


def _cifar(
    name: str,
    binary: BinaryVersion,
    image_classes: Sequence[str],
    root: str | None,
    download: bool,
    preprocess: str,
    mean: Sequence[float],
    std: Sequence[float],
    val_fraction: float,
    device: torch.device,
) -> RealSet:
    folder = base_folder(root)
    copy = None if (folder / PICKLES[name][0]).is_dir() else read_copy(name, folder, binary, image_classes)
    train, test, class_names = copy or _read_pickles(name, folder, binary, image_classes, download)
    return tensor_set(
        name,
        train,
        test,
        class_names=class_names,
        preprocess=fit_preprocess(preprocess, train[0], mean=mean, std=std, device=device),
        flip=True,
        licence="none stated; the publisher asks for the citation",
        citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        device=device,
        val_fraction=val_fraction,
    )


def _read_pickles(
    name: str, folder: Path, binary: BinaryVersion, image_classes: Sequence[str], download: bool
) -> Copy:
    subfolder, first = PICKLES[name]
    pickles = folder / subfolder
    copies = f"the folder that contains {subfolder}/ or {binary.folder}/"
    if image_classes:
        copies += ", or lossless images train/CLASS/INDEX.png and test/CLASS/INDEX.png"
    fixes = [f"dataset.root=FOLDER   # {copies}", "dataset.download=true"]
    if not download and not pickles.is_dir():
        raise not_found(name, first, [pickles], fixes)
    from torchvision import datasets  # the import takes seconds

    dataset = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    if not download:
        files = [*dataset.train_list, *dataset.test_list, (dataset.meta["filename"], dataset.meta["md5"])]
        verify_files(name, pickles, files, fixes)
    with downloading(name, dataset.url, pickles, copies):
        splits = [dataset(str(folder), train=is_train, download=download) for is_train in (True, False)]
    class_names = tuple(splits[0].classes)
    train, test = (_tensors(split) for split in splits)
    return train, test, class_names


def _tensors(split: CIFAR10) -> Arrays:
    pixels = torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous()  # torchvision stores (n, h, w, c)
    del split.data  # the copy in torchvision's layout
    return pixels, torch.tensor(split.targets)
