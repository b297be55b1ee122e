"""Image folders with one folder per class, such as ImageNet: `root/train/<class>/*` and `root/val/<class>/*`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dd_bench.data.dataset import RealSet, real_set, tensor_set
from dd_bench.data.folder import Decoder, FolderSplit, decode_all, digest_lines, find_images
from dd_bench.data.locate import base_folder, not_found
from dd_bench.data.preprocess import Normalise, fit_preprocess


def image_folder(
    *,
    name: str,
    root: str | None,
    test_folder: str,
    classes: Sequence[str | int] | None,
    size: int,
    resize: str,
    stream: bool,
    preprocess: str,
    mean: Sequence[float],
    std: Sequence[float],
    flip: bool,
    licence: str,
    citation: str,
    val_fraction: float,
    device: torch.device,
) -> RealSet:
    """Return the images of `root/train` and `root/<test_folder>`, `(3, size, size)`.

    The digest covers `size`, `resize`, the class names in label order, and the relative path and the number of bytes of
    every file. It is fast to compute even for ImageNet, and does not depend on `stream` or on the machine (decoders can
    differ in single bits). It does not detect an edit that preserves the size of a file.

    Args:
        name: the dataset's name in records and cards.
        root: folder of the dataset; None means `data/<name>`.
        test_folder: name of the test folder. ImageNet's labelled test images are in `val`.
        classes: None for all folders of `train`, sorted. Otherwise a list, in label order, of folder names or of
            indices into the sorted list of `train`'s folders (for ImageNet, the usual class indices).
        size: height and width in pixels.
        resize: `squash` or `crop`, see `Decoder`.
        stream: False decodes all images once into memory, `3 size^2` bytes per image. True decodes them on demand.
        preprocess: `normalise` with `mean` and `std`, or `zca`, which requires `stream=False`.
        mean: one value per channel, of pixels in [0, 1].
        std: one value per channel, of pixels in [0, 1].
        flip: see `RealSet`.
        licence: see `RealSet`.
        citation: see `RealSet`.
        val_fraction: see `tensor_set`.
        device: where the images are stored, or moved after decoding.

    Raises:
        FileNotFoundError: a folder is missing or contains no image.
        ValueError: an unknown class in `classes`, a class that only the test folder contains, or an unreadable image.
    """
    folder = base_folder(f"data/{name}" if root is None else root)
    decoder = Decoder(size, resize)
    if stream and preprocess != Normalise.kind:
        raise ValueError(
            f"dataset.preprocess={preprocess} requires all training images in memory. "
            "Use dataset.stream=false or dataset.preprocess=normalise"
        )
    for part in ("train", test_folder):
        if not (folder / part).is_dir():
            fixes = ["dataset.root=FOLDER", "dataset.test_folder=NAME"]
            raise not_found(name, f"folder {part!r} with one folder per class", [folder], fixes)
    train_folders = _subfolders(folder / "train")
    class_names = _select_classes(train_folders, classes, folder / "train")
    unknown = sorted(set(_subfolders(folder / test_folder)) - set(train_folders))
    if unknown and classes is None:
        raise ValueError(
            f"{folder / test_folder} has a class folder {unknown[0]!r} that is missing in {folder / 'train'}. "
            "Delete it, or list the classes to use: dataset.classes=[NAME,...]"
        )
    label_of = {c: label for label, c in enumerate(class_names)}
    (train, train_labels), (test, test_labels) = (
        find_images(folder / p, label_of) for p in ("train", test_folder)
    )
    sizes = (f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in [*train, *test])
    digest = digest_lines([size, resize, *class_names, *sizes])
    if not stream:
        pixels = decode_all(train, decoder)
        return tensor_set(
            name,
            (pixels, train_labels),
            (decode_all(test, decoder), test_labels),
            class_names=class_names,
            preprocess=fit_preprocess(preprocess, pixels, mean=mean, std=std, device=device),
            flip=flip,
            licence=licence,
            citation=citation,
            device=device,
            val_fraction=val_fraction,
            digest=digest,
        )
    transform = Normalise(mean, std)
    return real_set(
        name,
        FolderSplit(train, train_labels.to(device), len(class_names), transform, decoder),
        FolderSplit(test, test_labels.to(device), len(class_names), transform, decoder),
        class_names=class_names,
        preprocess=transform,
        flip=flip,
        digest=digest,
        licence=licence,
        citation=citation,
        val_fraction=val_fraction,
    )


def _subfolders(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.iterdir() if f.is_dir())


def _select_classes(folders: list[str], classes: Sequence[str | int] | None, train: Path) -> tuple[str, ...]:
    """Return the folder names of `classes` in label order."""
    selected = []
    for entry in folders if classes is None else classes:
        if isinstance(entry, int):
            if not 0 <= entry < len(folders):
                raise ValueError(
                    f"dataset.classes: an integer must be the index of one of the {len(folders)} sorted folders of "
                    f"{train}, got {entry}. Use folder names, or dataset.classes=null for all folders"
                )
            entry = folders[entry]
        elif entry not in folders:
            raise ValueError(
                f"dataset.classes: {entry!r} is not one of the {len(folders)} folders of {train}. Use dataset.classes="
                "null for all folders"
            )
        selected.append(entry)
    if len(set(selected)) < len(selected) or not selected:
        raise ValueError(
            f"dataset.classes must select at least one folder of {train} and each folder once, got "
            f"{list(classes or [])}. Use dataset.classes=null for all folders"
        )
    return tuple(selected)
