"""A dataset of some of the classes of another one. The other classes can train a backbone that has not seen them.

`dataset.classes=[5,6,7,8,9]` selects classes of any image dataset by index or by name. Datasets whose classes are
folders have a key `classes` of their own, which chooses the folders to read; their other classes are not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Self

import torch

from dd_bench.data.dataset import RealSet, Split
from dd_bench.runtime.suggestions import did_you_mean

KEY = "classes"


@dataclass(frozen=True)
class ClassSubset:
    """The selected classes of a dataset, as indices or names, in the order of their labels; None for all classes."""

    classes: tuple[int | str, ...] | None = None

    @classmethod
    def take_from(cls, values: dict[str, Any]) -> Self:
        """Remove the key `classes` from the configuration of a dataset, and return the subset.

        Raises:
            ValueError: the value is not a list.
        """
        found = values.pop(KEY, None)
        if found is None:
            return cls()
        if not isinstance(found, list) or not found:
            raise ValueError(
                f"dataset.{KEY} must be a list of class names or of indices, or null for all classes, got {found!r}. "
                f"Example: dataset.{KEY}=[0,1,2,3,4]"
            )
        return cls(tuple(found))

    def apply(self, real: RealSet) -> RealSet:
        """Return the dataset of the selected classes, under another name and with another digest.

        Labels are 0, 1, ... in the order of `classes`. The name ends in e.g. `-classes5-9`. The preprocessing is that
        of the whole dataset. `RealSet.others` has the training split of the classes that were not selected, in their
        order, unless there is none. Without a selection, the result is `real` itself.

        Raises:
            ValueError: the dataset has no images, or a class is unknown or selected twice.
        """
        if self.classes is None:
            return real
        if real.modality != "image":
            raise ValueError(f"dataset.{KEY} requires images, got {real.modality}s in {real.name}. Use null")
        chosen = [_index(c, real.class_names) for c in self.classes]
        if len(set(chosen)) < len(chosen):
            raise ValueError(
                f"dataset.{KEY} must not contain a class twice, got {list(self.classes)}. "
                f"Example: dataset.{KEY}=[0,1,2]"
            )
        rest = [c for c in range(real.num_classes) if c not in chosen]
        others = replace(_subset(real, rest), _test=None, val=None) if rest else None
        return replace(_subset(real, chosen), others=others)


def _index(c: int | str, names: Sequence[str]) -> int:
    """Return the index of a class given by its index or its name."""
    if type(c) is int and 0 <= c < len(names):
        return c
    if isinstance(c, str) and c in names:
        return list(names).index(c)
    near = get_close_matches(c, names, 3, 0.5) if isinstance(c, str) else []
    raise ValueError(
        f"dataset.{KEY} must contain names of classes ({', '.join(names[:3])}, ...) or indices from 0 to "
        f"{len(names) - 1}, got {c!r}{did_you_mean(near)}"
    )


def _subset(real: RealSet, classes: Sequence[int]) -> RealSet:
    """Return the dataset of some classes, without `others`."""
    text = f"{real.digest}, classes {list(classes)}"
    return replace(
        real,
        name=f"{real.name}-{KEY}{_ranges(classes)}",
        train=_split(real.train, classes),
        val=None if real.val is None else _split(real.val, classes),
        _test=_split(real.test, classes),
        class_names=tuple(real.class_names[c] for c in classes),
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def _split(split: Split, classes: Sequence[int]) -> Split:
    """Return the samples of some classes, whose labels are the positions of their classes in `classes`."""
    label_of = torch.full((split.num_classes,), -1, dtype=torch.int64, device=split.labels.device)
    label_of[list(classes)] = torch.arange(len(classes), device=split.labels.device)
    labels = label_of[split.labels]
    index = (labels >= 0).nonzero().flatten()
    part = split.subset(index).with_labels(labels[index])
    part.num_classes = len(classes)
    return part


def _ranges(classes: Sequence[int]) -> str:
    """Return the classes as text without gaps: `0-4` for consecutive ones, otherwise `0+2+7`."""
    first, last = classes[0], classes[-1]
    if len(classes) > 1 and list(classes) == list(range(first, last + 1)):
        return f"{first}-{last}"
    return "+".join(map(str, classes))
