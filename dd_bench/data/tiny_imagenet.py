"""Tiny-ImageNet: 200 classes of ImageNet at 64x64, as released by Stanford's course CS 231N."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet, tensor_set
from dd_bench.data.folder import digest_lines
from dd_bench.data.image_decoder import Decoder
from dd_bench.data.image_files import find_images
from dd_bench.data.image_index import index_images
from dd_bench.data.locate import base_folder, not_found
from dd_bench.data.pixel_cache import cached_pixels
from dd_bench.data.preprocess import fit_preprocess

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of ImageNet, as in the papers


def tiny_imagenet(*, root: str | None, preprocess: str, val_fraction: float, device: torch.device) -> RealSet:
    """Return 100,000 training and 10,000 test images, `(3, 64, 64)`, 200 classes in the order of `wnids.txt`.

    The test split is the folder `val`, because the labels of `test` were never released. Three layouts are supported:
    the released one (`val/images` and `val_annotations.txt`), and those of common scripts, which sort the images into
    `val/<wnid>` or `val/images/<wnid>`. The dataset and its digest do not depend on the layout. The digest covers the
    class order, and the label, name and bytes of every file.

    Raises:
        FileNotFoundError: neither `root` nor `root/tiny-imagenet-200` contains the dataset.
        ValueError: an image is unreadable, or an annotation has an unknown class.
    """
    base = base_folder(root)
    folders = [base, base / "tiny-imagenet-200"]
    folder = next((f for f in folders if (f / "wnids.txt").is_file()), None)
    if folder is None:
        fix = "unzip tiny-imagenet-200.zip -d data   # from the page of CS 231N"
        raise not_found("tiny_imagenet", "wnids.txt, train/ and val/", folders, [fix, "dataset.root=FOLDER"])
    wnids = tuple((folder / "wnids.txt").read_text().split())
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    train, test = find_images(folder / "train", label_of), _validation(folder / "val", label_of)
    hashes = [[info.sha256 for info in index_images(folder, paths)] for paths, _ in (train, test)]
    file_lines = (
        f"{part} {label} {path.name} {sha256}"
        for part, (paths, labels), of_files in zip(("train", "test"), (train, test), hashes, strict=True)
        for path, label, sha256 in zip(paths, labels.tolist(), of_files, strict=True)
    )
    digest = digest_lines([*wnids, *file_lines])
    decoder = Decoder(64, "squash")
    pixels = cached_pixels(train[0], hashes[0], decoder)
    return tensor_set(
        "tiny_imagenet",
        (pixels, train[1]),
        (cached_pixels(test[0], hashes[1], decoder), test[1]),
        class_names=wnids,
        preprocess=fit_preprocess(preprocess, pixels, mean=MEAN, std=STD, device=device),
        flip=True,
        licence="none of its own; ImageNet's terms: non-commercial research and education only",
        citation="Le and Yang, Tiny ImageNet Visual Recognition Challenge, CS 231N, 2015",
        device=device,
        val_fraction=val_fraction,
        digest=digest,
    )


def _validation(folder: Path, label_of: dict[str, int]) -> tuple[list[Path], Tensor]:
    """List the validation images of any of the three layouts, sorted by label and then by name."""
    for parent in (folder, folder / "images"):
        if all((parent / wnid).is_dir() for wnid in label_of):
            return find_images(parent, label_of)
    annotations = folder / "val_annotations.txt"
    if not annotations.is_file():
        fixes = ["unzip tiny-imagenet-200.zip -d data   # again"]
        raise not_found("tiny_imagenet", "val_annotations.txt (or one folder per class)", [folder], fixes)
    items = []
    for line in annotations.read_text().splitlines():
        file, wnid = line.split("\t")[:2]  # the bounding box follows
        if wnid not in label_of:
            raise ValueError(f"{annotations}: the class {wnid} of {file} is not in wnids.txt")
        items.append((label_of[wnid], folder / "images" / file))
    items.sort()
    return [path for _, path in items], torch.tensor([label for label, _ in items])
