"""Read CIFAR from a copy other than the published pickles: the binary version, or a folder of lossless images.

A copy is accepted if its pixels and labels, in the published order, have the known sha1. A dataset read from it is then
equal to the published one, and its results belong on the same leaderboards.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dd_bench.data.image_decoder import Decoder
from dd_bench.data.image_files import find_images, subfolders
from dd_bench.data.image_index import index_images
from dd_bench.data.pixel_cache import cached_pixels

LOSSLESS = (".png", ".bmp", ".ppm", ".tif", ".tiff")
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class BinaryVersion:
    """The binary version of CIFAR: per image, one or two label bytes and 3072 bytes of pixels, channel by channel.

    Attributes:
        folder: name of the unpacked archive.
        train: names and sha1 of the training files, in order.
        test: like `train`.
        label_bytes: bytes of labels; the class is the last one.
        names_file: file of the class names, one a line.
    """

    folder: str
    train: tuple[tuple[str, str], ...]
    test: tuple[tuple[str, str], ...]
    label_bytes: int
    names_file: str


Arrays = tuple[Tensor, Tensor]
Copy = tuple[Arrays, Arrays, tuple[str, ...]]


def read_copy(name: str, folder: Path, version: BinaryVersion, class_names: Sequence[str]) -> Copy | None:
    """Return (pixels, labels) of the training and of the test images, and the class names, from a copy in `folder`.

    Args:
        name: name of the dataset.
        folder: folder to search.
        version: the binary version with its sha1.
        class_names: names of the class folders, in label order. Empty if copies as image files cannot be verified.

    Returns:
        None if the folder has neither the binary version nor `train` and `test` with folders of these classes.

    Raises:
        ValueError: the copy does not have the published pixels, labels and order.
    """
    for candidate in (folder / version.folder, folder):
        if (candidate / version.train[0][0]).is_file():
            return _read_binary(name, candidate, version)
    test = next((folder / part for part in ("test", "val") if (folder / part).is_dir()), None)
    if (
        test is not None
        and (folder / "train").is_dir()
        and set(subfolders(folder / "train")) & set(class_names)
    ):
        parts = ((folder / "train", version.train), (test, version.test))
        train, held_out = (_read_images(name, folder, part, files, class_names) for part, files in parts)
        return train, held_out, tuple(class_names)
    return None


def _read_binary(name: str, folder: Path, version: BinaryVersion) -> Copy:
    def read(files: Sequence[tuple[str, str]]) -> Arrays:
        rows = []
        for file, sha1 in files:
            content = (folder / file).read_bytes() if (folder / file).is_file() else b""
            if hashlib.sha1(content, usedforsecurity=False).hexdigest() != sha1:
                raise ValueError(
                    f"{folder / file} is missing, damaged or not a file of {name}: its sha1 must be {sha1}. "
                    f"Unpack the binary version of {name} again"
                )
            rows.append(np.frombuffer(content, np.uint8).reshape(-1, version.label_bytes + _PIXELS))
        table = torch.from_numpy(np.concatenate(rows))
        labels = table[:, version.label_bytes - 1].long()
        return table[:, version.label_bytes :].reshape(-1, 3, 32, 32).contiguous(), labels

    names_file = folder / version.names_file
    if not names_file.is_file():
        raise ValueError(f"{names_file} is missing. Unpack the binary version of {name} again")
    return read(version.train), read(version.test), tuple(names_file.read_text().split())


def _read_images(
    name: str, root: Path, folder: Path, files: Sequence[tuple[str, str]], class_names: Sequence[str]
) -> Arrays:
    """Read one split from image files whose names contain the published index, and check it against `files`."""
    own_board = (
        f"To use these images, give them a name and leaderboards of their own: "
        f"dataset=image_folder dataset.name=my_{name} dataset.root={root} dataset.test_folder=NAME"
    )
    if set(subfolders(folder)) != set(class_names):
        raise ValueError(
            f"{folder} must have the class folders of {name} ({', '.join(class_names)}), got "
            f"{', '.join(subfolders(folder))}. {own_board}"
        )
    paths, labels = find_images(folder, {c: label for label, c in enumerate(class_names)})
    if lossy := [path for path in paths if path.suffix.lower() not in LOSSLESS]:
        raise ValueError(
            f"{lossy[0]} is in a lossy format, so its pixels are not those of {name}. Use a lossless copy ("
            f"{', '.join(LOSSLESS)}) or the published files. {own_board}"
        )
    numbers = [re.findall("[0-9]+", path.stem) for path in paths]
    order = sorted(range(len(paths)), key=lambda i: int(numbers[i][0]) if numbers[i] else -1)
    if any(len(found) != 1 for found in numbers) or len({int(found[0]) for found in numbers}) < len(paths):
        raise ValueError(
            f"the names of the files in {folder} must contain one number, the index of the image in the published "
            f"order of the whole split, e.g. {class_names[0]}/29.png. Without it, the order is unknown. {own_board}"
        )
    hashes = [info.sha256 for info in index_images(root, paths)]
    pixels, labels = cached_pixels(paths, hashes, Decoder(32, "squash"))[order], labels[order]
    rows = torch.cat([labels.to(torch.uint8)[:, None], pixels.flatten(1)], 1)
    size = -(-len(rows) // len(files))
    for (file, sha1), part in zip(files, rows.split(size), strict=False):
        if hashlib.sha1(part.numpy().data, usedforsecurity=False).hexdigest() != sha1:
            raise ValueError(
                f"the images in {folder}, in the order of the numbers in their names, are not those of {name}: their "
                f"pixels and labels do not have the sha1 of the published file {file}. {own_board}"
            )
    return pixels, labels
