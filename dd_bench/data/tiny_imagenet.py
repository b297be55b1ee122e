"""Tiny-ImageNet: 200 classes of ImageNet at 64x64, as Stanford's course CS 231N hands it out."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet, tensor_set
from dd_bench.data.folder import Decoder, decode_all, digest_lines, find_images
from dd_bench.data.locate import base_folder, not_found
from dd_bench.data.preprocess import fit_preprocess

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of ImageNet, as every paper uses here


def tiny_imagenet(*, root: str | None, preprocess: str, val_fraction: float, device: torch.device) -> RealSet:
    """Returns 100,000 training and 10,000 test images, `(3, 64, 64)`, 200 classes as `wnids.txt` orders them.

    The test split is the folder `val`: the labels of `test` were never released. Its images may lie as they
    come (`val/images` and `val_annotations.txt`), or sorted into `val/<wnid>` or `val/images/<wnid>`, as many
    scripts leave them. The set and its digest (of the class order, and the label, name and bytes of every
    file) are the same for each of the three.

    Raises:
        FileNotFoundError: neither `root` nor `root/tiny-imagenet-200` holds it.
        ValueError: an image is unreadable, or its annotation names no class.
    """
    base = base_folder(root)
    folders = [base, base / "tiny-imagenet-200"]
    folder = next((f for f in folders if (f / "wnids.txt").is_file()), None)
    if folder is None:
        fix = "unzip tiny-imagenet-200.zip -d data   # from the page of CS 231N"
        raise not_found(
            "tiny_imagenet", "wnids.txt beside train/ and val/", folders, [fix, "dataset.root=FOLDER"]
        )
    wnids = tuple((folder / "wnids.txt").read_text().split())
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    train, test = find_images(folder / "train", label_of), _validation(folder / "val", label_of)
    facts = (
        f"{part} {label} {path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for part, (paths, labels) in (("train", train), ("test", test))
        for path, label in zip(paths, labels.tolist(), strict=True)
    )
    digest = digest_lines([*wnids, *facts])
    decoder = Decoder(64, "squash")
    pixels = decode_all(train[0], decoder)
    return tensor_set(
        "tiny_imagenet",
        (pixels, train[1]),
        (decode_all(test[0], decoder), test[1]),
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
    """Lists the validation images by label, then by name, whichever way they lie."""
    for sorted_in in (folder, folder / "images"):
        if all((sorted_in / wnid).is_dir() for wnid in label_of):
            return find_images(sorted_in, label_of)
    table = folder / "val_annotations.txt"
    if not table.is_file():
        fixes = ["unzip tiny-imagenet-200.zip -d data   # again"]
        raise not_found("tiny_imagenet", "val_annotations.txt, nor a folder for each class", [folder], fixes)
    items = []
    for line in table.read_text().splitlines():
        file, wnid = line.split("\t")[:2]  # then the bounding box
        if wnid not in label_of:
            raise ValueError(f"{table} gives {file} the class {wnid}, which wnids.txt lacks")
        items.append((label_of[wnid], folder / "images" / file))
    items.sort()
    return [path for _, path in items], torch.tensor([label for label, _ in items])
