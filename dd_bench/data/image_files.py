"""List the image files in class folders, in a fixed order. Files that operating systems and editors add are ignored."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dd_bench.runtime.hidden import is_hidden

TEXT = (".txt", ".csv", ".json", ".xml", ".md")
"""Extensions of annotations, which are skipped without a warning."""

IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Extensions of supported formats, those of torchvision's `ImageFolder`."""

_log = logging.getLogger(__name__)


def subfolders(folder: Path) -> list[str]:
    """Return the names of the subfolders that are not hidden, sorted."""
    return sorted(f.name for f in folder.iterdir() if f.is_dir() and not is_hidden(f.name))


def find_images(
    folder: Path, label_of: Mapping[str, int], *, empty: bool = False
) -> tuple[list[Path], Tensor]:
    """List the image files in the class folders of `folder` and in their subfolders.

    Hidden files and folders and text files are ignored. Other files that are not images in a supported format are not
    read; a warning gives their number by extension.

    Args:
        folder: parent of the class folders.
        label_of: maps the name of a class folder to its label.
        empty: whether class folders may contain no image.

    Returns:
        Paths, sorted by label and then by path, and labels `(n,)`.

    Raises:
        FileNotFoundError: a class folder is missing or contains no image.
    """
    missing = [c for c in label_of if not (folder / c).is_dir()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} class folder(s) not found. The first is {folder / missing[0]}. "
            "Set dataset.root to the folder of a complete copy of the dataset: dataset.root=FOLDER"
        )
    items: list[tuple[int, str]] = []
    others: Counter[str] = Counter()
    for name, label in label_of.items():
        images, skipped = _scan(folder / name)
        if not images and not empty:
            raise FileNotFoundError(
                f"{folder / name} contains no image in a supported format ({', '.join(IMAGES)})"
                + (f", only {_counts(skipped)}" if skipped else "")
            )
        items += [(label, path) for path in images]
        others += skipped
    if others:
        _log.warning(
            "%s: %d files are not read because of their format: %s. Supported formats: %s",
            folder, others.total(), _counts(others), ", ".join(IMAGES),
        )  # fmt: skip
    items.sort()
    return [Path(path) for _, path in items], torch.tensor([label for label, _ in items])


def _scan(folder: Path) -> tuple[list[str], Counter[str]]:
    """Return the image files below a folder, and the number of other files by extension."""
    images: list[str] = []
    others: Counter[str] = Counter()
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in files:
            if is_hidden(name):
                continue
            if name.lower().endswith(IMAGES):
                images.append(f"{parent}{os.sep}{name}")
            elif (extension := Path(name).suffix.lower()) not in TEXT:
                others[extension or "without extension"] += 1
    return images, others


def _counts(files: Counter[str]) -> str:
    return ", ".join(f"{count} {extension}" for extension, count in files.most_common())
