"""Match the classes of a released set (folders of images, or numbers in a tensor of labels) with those of the real set.

Names are compared with the class names of the real set. Numbers are ambiguous, because authors number classes in three
ways: by the dataset's labels, by the sorted names of its class folders (torchvision's `ImageFolder`), and by ImageNet's
class indices. A number is used only if one of them applies; otherwise the user has to choose with `--classes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dd_bench.hub.importers.class_names import by_imagenet_index, by_name, describe, numbers_of, shown
from dd_bench.hub.importers.imagenet import is_wnid
from dd_bench.runtime import untrusted
from dd_bench.synthetic.card import MAX_TEXT

LABEL, SORTED = "label", "sorted"
"""Values of `--classes` for numbers 0 to k-1: labels of the real set, or positions among its sorted class names."""


class ClassOrder(NamedTuple):
    """The class of each released folder or number.

    Attributes:
        label_of: maps the name of a folder, or a number as text, to a label of the real set; a bijection.
        rule: how the classes were found, e.g. `by name`.
    """

    label_of: dict[str, int]
    rule: str

    def summary(self, class_names: Sequence[str], limit: int = 10) -> str:
        """Return one line with the class of each folder or number, in label order, shortened to `limit` classes."""
        pairs = sorted(self.label_of.items(), key=lambda item: item[1])
        words = [f"{name} -> {describe(class_names[label])}" for name, label in pairs[:limit]]
        rest = f", ... ({len(pairs)} classes)" if len(pairs) > limit else ""
        return f"classes {self.rule}: {', '.join(words)}{rest}"


def class_order(names: Sequence[str], class_names: Sequence[str], choice: str | None = None) -> ClassOrder:
    """Find the class of each folder or number.

    Args:
        names: names of the class folders, or the numbers in a tensor of labels as text; all different.
        class_names: the classes of the real set in label order.
        choice: the value of `--classes`: `label`, `sorted`, the path of a file (see `read_classes`), or None.

    Raises:
        ValueError: the number of classes differs, or the classes are unknown or ambiguous.
    """
    k = len(class_names)
    if len(names) != k:
        raise ValueError(
            f"the set must have one class for each of the {k} classes of the dataset, got {len(names)}: {shown(names)}"
        )
    numbers = numbers_of(names)
    counted = set(numbers.values()) == set(range(k))
    if choice in (LABEL, SORTED) and not counted:
        raise ValueError(
            f"--classes {choice} requires classes numbered from 0 to {k - 1}, got {shown(names)}. "
            "Example: --classes FILE, a file with lines FOLDER,CLASS"
        )
    if choice is None:
        found = by_name(names, class_names)
        rule = "by name"
        if not found and counted and _is_ambiguous(class_names):
            raise ValueError(_ambiguity(min(numbers, key=lambda name: numbers[name]), class_names))
        if not found and not counted:
            found = by_imagenet_index(numbers, class_names)
            rule = "by ImageNet index"
    elif choice not in (LABEL, SORTED):
        found = read_classes(Path(choice), names, class_names)
        rule = f"by {Path(choice).name}"
    else:
        found = {}
    if not found and counted:
        order = sorted(class_names) if choice == SORTED else list(class_names)
        found = {name: class_names.index(order[number]) for name, number in numbers.items()}
        rule = f"in {choice or LABEL} order"
    if not found:
        raise ValueError(
            f"the classes {shown(names)} are not those of the dataset, {shown(class_names)}, and not numbered from 0 "
            f"to {k - 1} or by ImageNet's class indices. Give each its class: --classes FILE, with lines FOLDER,CLASS"
        )
    return _one_to_one(found, rule)


def label_order(labels: Tensor, class_names: Sequence[str], choice: str | None = None) -> ClassOrder:
    """Find the class of the real set for each class number in `labels`: a value of `(n,)`, or a column of `(n, k)`.

    Raises:
        ValueError: see `class_order`.
    """
    k = len(class_names)
    values = range(labels.shape[1]) if labels.ndim == 2 else labels.unique().tolist()
    if labels.ndim == 1 and min(values) >= 0 and max(values) < k:
        values = range(k)  # a class without images is reported by the check of ipc
    return class_order([str(v) for v in values], class_names, choice)


def relabel(labels: Tensor, order: ClassOrder) -> Tensor:
    """Return `labels (n,)` or `(n, k)` in the label order of the real set."""
    numbers = sorted(int(name) for name in order.label_of)
    target = torch.tensor([order.label_of[str(number)] for number in numbers])
    if labels.ndim == 2:
        return labels[:, target.argsort()]
    return target[torch.searchsorted(torch.tensor(numbers), labels)]


def read_classes(path: Path, names: Sequence[str], class_names: Sequence[str]) -> dict[str, int]:
    """Read a CSV file with one line `FOLDER,CLASS` per class, e.g. `00003,n02088364` or `155,Shih-Tzu`.

    FOLDER is the name of a class folder, or a number in a tensor of labels. CLASS is a class name of the real set, or
    ImageNet's name of it.

    Raises:
        ValueError: a line does not have two fields, or a folder or class is unknown, repeated or missing.
    """
    if not path.is_file():
        raise ValueError(f"--classes must be {LABEL}, {SORTED} or a file with lines FOLDER,CLASS, got {path}")
    rows = [[field.strip() for field in row] for row in untrusted.csv_rows(path, MAX_TEXT)]
    label_of: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        if len(row) != 2 or row[0] not in names or row[0] in label_of:
            raise ValueError(
                f"{path}, line {number}: must be FOLDER,CLASS with one line for each of {shown(names)}, "
                f"got {','.join(row)!r}. Example: {names[0]},{class_names[0]}"
            )
        if not (found := by_name([row[1]], class_names)):
            raise ValueError(
                f"{path}, line {number}: {row[1]!r} is not one of the classes {shown(class_names)}. "
                f"Example: {row[0]},{class_names[0]}"
            )
        label_of[row[0]] = found[row[1]]
    if missing := [name for name in names if name not in label_of]:
        raise ValueError(f"{path} has no line for {shown(missing)}. Example: {missing[0]},{class_names[0]}")
    return label_of


def _is_ambiguous(class_names: Sequence[str]) -> bool:
    """Return whether the labels of the dataset may differ from the positions of its sorted class folders."""
    return all(map(is_wnid, class_names)) and list(class_names) != sorted(class_names)


def _ambiguity(first: str, class_names: Sequence[str]) -> str:
    return (
        f"the order of the numbered classes is not known: {first} can be {describe(class_names[0])}, the first label "
        f"of the dataset, or {describe(min(class_names))}, the first of its sorted class folders (torchvision's "
        "ImageFolder). Use --classes label, --classes sorted, or --classes FILE with lines FOLDER,CLASS"
    )


def _one_to_one(label_of: Mapping[str, int], rule: str) -> ClassOrder:
    names: dict[int, str] = {}
    for name, label in label_of.items():
        if label in names:
            raise ValueError(
                f"{names[label]} and {name} are the same class. Give each its class: --classes FILE"
            )
        names[label] = name
    return ClassOrder(dict(label_of), rule)
