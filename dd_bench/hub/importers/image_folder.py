"""Read a released set that is a folder of image files, with one subfolder per class.

The files are untrusted: symbolic links are refused, because they could add private images of the user to the set.
Hidden files are ignored, as in image folders of real data.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.image_decoder import Decoder, Unsupported, decode_all
from dd_bench.data.image_files import find_images
from dd_bench.hub.folder_layout import LABELS, read_labels
from dd_bench.runtime import untrusted

MAX_IMAGE = 64 << 20
"""Maximum size of an image file in bytes."""


class ReleasedFolder(NamedTuple):
    """The content of a folder.

    Attributes:
        images: uint8 `(n, c, h, w)`, in the order of `labels.csv` if there is one.
        labels: classes `(n,)`, or the soft labels `(n, k)` in `labels.csv`.
        files: all files that were read.
    """

    images: Tensor
    labels: Tensor
    files: list[Path]


def read_folder(
    folder: Path,
    label_of: dict[str, int],
    real: RealSet,
    ipc: int,
    background: str | None = None,
    resize: str | None = None,
) -> ReleasedFolder:
    """Read the image files of a folder, and `labels.csv` if there is one.

    Args:
        folder: the parent of the class folders.
        label_of: maps the name of a class folder to its label, see `class_order`.
        real: the real set; the images must have its size and channels.
        ipc: maximum number of images per class; checked before the images are decoded.
        background: colour under transparent pixels, see `Decoder`.
        resize: how images of other sizes are resized, `squash` or `crop`, see `Decoder`; None: they are errors.

    Raises:
        ValueError: a file is not a regular file of at most `MAX_IMAGE` bytes; there are more than `ipc` images per
            class; the images do not have the size of `real`, or are coloured and those of `real` are grey; or
            `labels.csv` does not match the images.
    """
    c, h, w = real.shape
    if h != w:
        raise ValueError(
            f"{folder}: only square images can be imported, but those of {real.name} are {h}x{w}"
        )
    has_labels = os.path.lexists(folder / LABELS)
    paths, labels = find_images(folder, label_of, empty=has_labels)
    if len(paths) > ipc * len(label_of):
        raise ValueError(
            f"with --ipc {ipc}, {folder} must contain at most {ipc * len(label_of):,} images, got {len(paths):,}. "
            f"Use --ipc {math.ceil(len(paths) / len(label_of))}"
        )
    _check_no_links(folder, paths)
    files = list(paths)
    if has_labels:
        files.append(folder / LABELS)
        paths, labels = _soft_labels(folder, paths, labels, real.class_names)
    decoder = (
        _ExactDecoder(h, "squash", background) if resize is None else _FileDecoder(h, resize, background)
    )
    pixels = decode_all(paths, decoder)
    if c == 1:
        if not all(torch.equal(pixels[:, 0], pixels[:, i]) for i in (1, 2)):
            raise ValueError(f"{folder} must contain grey images like {real.name}, got colour images")
        pixels = pixels[:, :1].contiguous()
    return ReleasedFolder(pixels, labels, files)


def _soft_labels(
    folder: Path, paths: Sequence[Path], classes: Tensor, class_names: Sequence[str]
) -> tuple[list[Path], Tensor]:
    """Return the image files in the order of `labels.csv`, and their soft labels.

    Raises:
        ValueError: the most probable class of an image is not that of its folder, which suggests wrong columns.
    """
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    soft = read_labels(folder, list(names), class_names)
    for name, label in zip(names, classes.tolist(), strict=True):
        if not soft[name][label] >= soft[name].max():
            best = class_names[int(soft[name].argmax())]
            raise ValueError(
                f"{folder / name} is in the folder of class {class_names[label]}, but its most probable class in "
                f"{LABELS} is {best}. Move the image, or remove {LABELS} to import hard labels"
            )
    return [names[name] for name in soft], torch.stack(list(soft.values()))


def _check_no_links(folder: Path, paths: Sequence[Path]) -> None:
    """Raise ValueError if a folder below `folder` is a symbolic link. Files are checked when they are opened."""
    root = folder.resolve()
    for parent in sorted({path.parent for path in paths}):
        if parent.resolve() != root / parent.relative_to(folder):
            raise ValueError(
                f"{parent} must be a folder, got a symbolic link. To replace links by copies: cp -rL {folder} COPY"
            )


class _FileDecoder(Decoder):
    """Read only regular files, and resize them."""

    BACKGROUND: ClassVar[str] = "--background "

    def __call__(self, path: Path) -> Tensor:
        with untrusted.open_regular(path, MAX_IMAGE) as file:
            return self._decode(file, path)


class _ExactDecoder(_FileDecoder):
    """Read only images of the expected size, because resizing would change the set."""

    def _check_size(self, size: tuple[int, int], path: Path) -> None:
        if size != (self.size, self.size):
            raise Unsupported(
                f"{path} must have {self.size}x{self.size} pixels, got {size[0]}x{size[1]}. Use dataset.size={size[0]} "
                "if networks should be trained on images of this size, or --resize to resize the images of the set"
            )
