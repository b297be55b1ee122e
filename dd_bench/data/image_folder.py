"""Image folders with one folder per class, such as ImageNet: `root/train/<class>/*` and `root/val/<class>/*`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dd_bench.data.dataset import RealSet, real_set, tensor_set
from dd_bench.data.folder import FolderSplit, digest_lines
from dd_bench.data.image_decoder import Decoder
from dd_bench.data.image_files import find_images, subfolders
from dd_bench.data.image_index import ImageInfo, index_images
from dd_bench.data.locate import base_folder, not_found
from dd_bench.data.pixel_cache import cached_pixels
from dd_bench.data.preprocess import Normalise, channel_statistics, fit_preprocess


def image_folder(
    *,
    name: str,
    root: str | None,
    test_folder: str,
    classes: Sequence[str | int] | None,
    size: int | None,
    resize: str,
    background: str | None,
    stream: bool,
    preprocess: str,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    flip: bool,
    licence: str,
    citation: str,
    val_fraction: float,
    device: torch.device,
) -> RealSet:
    """Return the images of `root/train` and `root/<test_folder>`, `(3, h, w)`.

    The digest covers the name, the size, the resize mode, the class names in order, and the relative path and sha256
    of every file. It does not depend on `stream` or on the machine (decoders can differ in single bits). A hash is
    computed again only if its file changes, see `image_index`. Decoded images are stored too, see `pixel_cache`.

    Args:
        name: the dataset's name in records and cards.
        root: folder of the dataset; None means `data/<name>`.
        test_folder: name of the test folder. ImageNet's labelled test images are in `val`.
        classes: None for all folders of `train`, sorted. Otherwise a list, in label order, of folder names or of
            indices into the sorted list of `train`'s folders (for ImageNet, the usual class indices).
        size: height and width in pixels. None: the size of the images, which must all have the same size.
        resize: `squash` or `crop`, see `Decoder`.
        background: colour under transparent pixels, see `Decoder`.
        stream: False decodes all images once, `3 h w` bytes per image. True decodes them whenever they are used.
        preprocess: `normalise` with `mean` and `std`, or `zca`, which requires `stream=False`.
        mean: one value per channel, of pixels in [0, 1]. None: the mean of the training images.
        std: like `mean`.
        flip: see `RealSet`.
        licence: see `RealSet`.
        citation: see `RealSet`.
        val_fraction: see `tensor_set`.
        device: where the images are stored, or moved after decoding.

    Raises:
        FileNotFoundError: a folder is missing or contains no image.
        ValueError: an unknown class in `classes`, a class that only the test folder contains, an unreadable image,
            images of different sizes without `size`, or `stream` without `mean` and `std`.
    """
    folder = base_folder(f"data/{name}" if root is None else root)
    if stream and preprocess != Normalise.kind:
        raise ValueError(
            f"dataset.preprocess={preprocess} requires all training images in memory. "
            "Use dataset.stream=false or dataset.preprocess=normalise"
        )
    if (mean is None) != (std is None):
        raise ValueError(
            f"dataset.mean and dataset.std must both be lists or both be null, got {mean} and {std}. "
            "Example: dataset.mean=[0.485,0.456,0.406] dataset.std=[0.229,0.224,0.225]"
        )
    if stream and mean is None:
        raise ValueError(
            "dataset.stream=true requires dataset.mean and dataset.std, because computing them decodes all images. "
            "Example with the values of ImageNet: dataset.mean=[0.485,0.456,0.406] dataset.std=[0.229,0.224,0.225]"
        )
    for part in ("train", test_folder):
        if not (folder / part).is_dir():
            fixes = ["dataset.root=FOLDER", "dataset.test_folder=NAME"]
            raise not_found(name, f"folder {part!r} with one folder per class", [folder], fixes)
    train_folders = subfolders(folder / "train")
    class_names = _select_classes(train_folders, classes, folder / "train")
    unknown = sorted(set(subfolders(folder / test_folder)) - set(train_folders))
    if unknown and classes is None:
        raise ValueError(
            f"{folder / test_folder} has a class folder {unknown[0]!r} that is missing in {folder / 'train'}. "
            "Delete it, or list the classes to use: dataset.classes=[NAME,...]"
        )
    label_of = {c: label for label, c in enumerate(class_names)}
    (train, train_labels), (test, test_labels) = (
        find_images(folder / p, label_of) for p in ("train", test_folder)
    )
    paths = [*train, *test]
    infos = index_images(folder, paths)
    decoder = Decoder(_common_size(paths, infos) if size is None else size, resize, background)
    names = (path.relative_to(folder).as_posix() for path in paths)
    files = (f"{name} {info.sha256}" for name, info in zip(names, infos, strict=True))
    composited = [] if background is None else [f"background {background}"]
    digest = digest_lines([name, decoder.size, resize, *composited, *class_names, *files])
    common: dict[str, Any] = {
        "class_names": class_names,
        "flip": flip,
        "digest": digest,
        "licence": licence,
        "citation": citation,
        "val_fraction": val_fraction,
    }
    if stream:
        assert mean is not None and std is not None
        transform = Normalise(mean, std)
        splits = (
            FolderSplit(p, labels.to(device), len(class_names), transform, decoder)
            for p, labels in ((train, train_labels), (test, test_labels))
        )
        return real_set(name, *splits, preprocess=transform, **common)
    hashes = [info.sha256 for info in infos]
    pixels = cached_pixels(train, hashes[: len(train)], decoder)
    test_pixels = cached_pixels(test, hashes[len(train) :], decoder)
    if mean is None or std is None:
        mean, std = channel_statistics(pixels)
    return tensor_set(
        name,
        (pixels, train_labels),
        (test_pixels, test_labels),
        preprocess=fit_preprocess(preprocess, pixels, mean=mean, std=std, device=device),
        device=device,
        **common,
    )


def _common_size(paths: Sequence[Path], infos: Sequence[ImageInfo]) -> int | tuple[int, int]:
    """Return the size that all images share: one integer if they are square, else height and width.

    Raises:
        ValueError: an image is not readable, or two images have different sizes.
    """
    sizes: dict[tuple[int, int], Path] = {}
    for path, info in zip(paths, infos, strict=True):
        sizes.setdefault((info.height, info.width), path)
    if (0, 0) in sizes:
        raise ValueError(f"cannot read the image {sizes[0, 0]}. Download it again or delete it")
    (first, path), *others = sizes.items()
    if others:
        (second, other), *_ = others
        raise ValueError(
            f"the images have {len(sizes)} different sizes, e.g. {first[1]}x{first[0]} ({path}) and "
            f"{second[1]}x{second[0]} ({other}). Choose one size in pixels, to which all are resized. "
            "Example: dataset.size=64 dataset.resize=crop"
        )
    return first[0] if first[0] == first[1] else first


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
            f"dataset.classes must select at least one folder of {train} and no folder twice, got "
            f"{list(classes or [])}. Use dataset.classes=null for all folders"
        )
    return tuple(selected)
