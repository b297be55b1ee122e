"""The folder of images that `dd-bench export` writes and `dd-bench import` reads.

03_dress/17.png   image files in one folder per class
labels.csv        soft labels, if the set has any: one line per image, one column per class
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dd_bench.runtime import untrusted
from dd_bench.runtime.spreadsheet import csv_cell

LABELS = "labels.csv"
_FILE = "file"  # name of the first column
_NUMBER, _PATH = 32, 4096  # maximum bytes of a number and of a path in `LABELS`


def class_folders(class_names: Sequence[str]) -> list[str]:
    """Return the names of the class folders. They begin with the label and contain no special characters."""
    width = len(str(len(class_names) - 1))
    names = (f"{label:0{width}d}_{name}" for label, name in enumerate(class_names))
    return ["".join(x if x.isalnum() or x in "_-" else "_" for x in name) for name in names]


def write_labels(folder: Path, files: Iterable[str], labels: Tensor, class_names: Sequence[str]) -> None:
    """Write the soft labels `(n, k)` of image files, given by their paths below `folder`."""
    with (folder / LABELS).open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow([_FILE, *map(csv_cell, class_names)])
        rows.writerows([name, *row] for name, row in zip(files, labels.tolist(), strict=True))


def read_labels(folder: Path, files: Sequence[str], class_names: Sequence[str]) -> dict[str, Tensor]:
    """Read the soft labels of image files.

    Args:
        folder: the folder that contains `LABELS`.
        files: all image files, by their paths below `folder`.
        class_names: the classes in label order.

    Returns:
        The label of each file, float32 `(k,)`, in the order of the lines.

    Raises:
        ValueError: `LABELS` is not a CSV file with one line for each file and one column for each class.
    """
    path, k = folder / LABELS, len(class_names)
    rows = untrusted.csv_rows(path, (len(files) + 1) * (k * _NUMBER + _PATH))
    expected = [_FILE, *map(csv_cell, class_names)]
    header = next(rows, [])
    if sorted(header) != sorted(expected) or header[0] != _FILE:
        raise ValueError(
            f"the first line of {path} must be {_shown(expected)}, got {_shown(header)}. If these are not the "
            "soft labels of the images, rename the file"
        )
    columns = range(1, k + 1) if header == expected else [header.index(name, 1) for name in expected[1:]]
    unlabelled, labels = set(files), {}
    for number, row in enumerate(rows, 2):
        if len(row) != len(header) or row[0] not in unlabelled:
            raise ValueError(
                f"{path}, line {number}: must contain an image file without another line, and {k} numbers, got "
                f"{_shown(row)}. Example: {next(iter(unlabelled), files[0])},{','.join(['0.5', '0.5', '0.0'][:k])}"
            )
        unlabelled.remove(row[0])
        try:
            labels[row[0]] = torch.tensor([float(row[i]) for i in columns])
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}. Export the set again") from error
    if unlabelled:
        raise ValueError(
            f"{path} has no line for {len(unlabelled)} of {len(files)} images, e.g. {min(unlabelled)}. Add the "
            "lines, or remove the images"
        )
    return labels


def _shown(row: Sequence[str]) -> str:
    """Return the beginning of a line, for a message."""
    return ",".join(cell[:100] for cell in row[:5]) + (",..." if len(row) > 5 else "")
