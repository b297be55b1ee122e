"""Any folder of class folders: `root/train/<class>/*` and `root/val/<class>/*`. ImageNet and its subsets."""

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
    """Returns the images of `root/train` and `root/<test_folder>`, `(3, size, size)`.

    Its digest covers the size and resize mode, the class names in order, and the relative path and the size
    in bytes of every file: cheap at ImageNet's size, and alike whether it streams or not and on every machine
    (decoders differ in a bit here and there). It does not notice an edit that keeps a file's size.

    Args:
        name: the dataset's name in records and cards.
        root: null is `data/<name>`.
        test_folder: the folder that evaluators use; ImageNet's labelled one is `val`.
        classes: null for every folder of `train`, sorted. Or a list, in label order, of folder names or of
            integers, which count in the sorted list of `train`'s folders: ImageNet's usual class indices.
        size: side in pixels.
        resize: `squash` or `crop`, see `Decoder`.
        stream: false decodes everything once into memory, `3 size^2` bytes an image; true decodes on demand.
        preprocess: `normalise` with `mean` and `std`, or `zca`, which cannot stream.
        mean: of each channel, of pixels in [0, 1].
        std: likewise.
        flip: whether a horizontal flip keeps the class.
        licence: carried into the card of every set distilled from it.
        citation: likewise.
        val_fraction: see `tensor_set`.
        device: where the images go.

    Raises:
        FileNotFoundError: a folder is missing or holds no image.
        ValueError: a class that `train` lacks, a folder that only the test split has, an unreadable image.
    """
    folder = base_folder(f"data/{name}" if root is None else root)
    decoder = Decoder(size, resize)
    if stream and preprocess != Normalise.kind:
        raise ValueError(
            f"preprocess={preprocess} is fitted to all training images in memory. "
            "Use dataset.stream=false or dataset.preprocess=normalise"
        )
    for part in ("train", test_folder):
        if not (folder / part).is_dir():
            fixes = ["dataset.root=FOLDER", "dataset.test_folder=NAME"]
            raise not_found(name, f"folder {part!r} with a folder for each class", [folder], fixes)
    found = _subfolders(folder / "train")
    class_names = _pick(found, classes, folder / "train")
    unknown = sorted(set(_subfolders(folder / test_folder)) - set(found))
    if unknown and classes is None:
        raise ValueError(f"{folder / test_folder} holds a class {unknown[0]!r} that {folder / 'train'} lacks")
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


def _pick(found: list[str], classes: Sequence[str | int] | None, train: Path) -> tuple[str, ...]:
    """Returns the folder names of `classes` in label order."""
    picked = []
    for entry in found if classes is None else classes:
        if isinstance(entry, int):
            if not 0 <= entry < len(found):
                raise ValueError(
                    f"dataset.classes holds {entry}, but {train} has {len(found)} folders: an integer counts "
                    "in the sorted list of them all. Name folders, or take them all with dataset.classes=null"
                )
            entry = found[entry]
        elif entry not in found:
            raise ValueError(
                f"dataset.classes holds {entry!r}, which is no folder of {train} ({len(found)} folders)"
            )
        picked.append(entry)
    if len(set(picked)) < len(picked) or not picked:
        raise ValueError(
            f"dataset.classes={list(classes or [])} picks {len(set(picked))} different folders of {train}"
        )
    return tuple(picked)
