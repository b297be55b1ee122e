"""A saved synthetic set, for use in Python code and notebooks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dd_bench.data.preprocess import Preprocess
from dd_bench.runtime.terminal import sanitize
from dd_bench.synthetic import storage
from dd_bench.synthetic.base import SyntheticImages, SyntheticSet
from dd_bench.synthetic.card import PREVIEW, Card
from dd_bench.synthetic.torch_dataset import ImageDataset, Transform


@dataclass(frozen=True, eq=False, repr=False)
class DistilledSet:
    """A synthetic set in a folder: its stored tensors and its card. `n` is the number of training images.

    One stored image may contain several training images, so `n` can be larger than `ipc` times the number of classes.

    Attributes:
        stored: the set as the method returned it.
        card: method, dataset, preprocessing, licence, citation, and the sha256 of every file.
        folder: folder of the set, for `dd_bench.evaluate` and `dd-bench evaluate set=FOLDER`.
    """

    stored: SyntheticSet
    card: Card
    folder: Path

    @classmethod
    def at(cls, folder: Path) -> DistilledSet:
        """Read and check the set in a folder.

        Raises:
            ValueError: the folder has no set, or the set is damaged.
        """
        stored, card = storage.load(folder)
        return cls(stored, card, folder)

    def images(self) -> Tensor:
        """Return the pixels of all training images, float32 in [0, 1], `(n, c, h, w)`. Values outside are clipped.

        Raises:
            ValueError: the set contains graphs.
        """
        return self.preprocess.inverse(self.inputs()).clamp(0, 1)

    def inputs(self) -> Tensor:
        """Return the preprocessed images that networks are trained on, float32 `(n, c, h, w)`.

        Raises:
            ValueError: the set contains graphs.
        """
        return self._training_data[0]

    @property
    def labels(self) -> Tensor:
        """Labels of `images()` and `inputs()`: classes, int64 `(n,)`, or soft labels, float32 `(n, k)`.

        Raises:
            ValueError: the set contains graphs.
        """
        return self._training_data[1]

    @cached_property
    def _training_data(self) -> tuple[Tensor, Tensor]:
        return self._images.materialise(torch.device("cpu"))

    @property
    def _images(self) -> SyntheticImages:
        if not isinstance(self.stored, SyntheticImages):
            raise ValueError(
                f"a set of kind {self.stored.kind!r} has no images. Use .stored, which contains the tensors and labels"
            )
        return self.stored

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in label order."""
        return self.stored.class_names

    def dataset(
        self, transform: Transform | None = None, target_transform: Transform | None = None
    ) -> ImageDataset:
        """Return the training images and their labels as a `torch.utils.data.Dataset`.

        Args:
            transform: applied to each input `(c, h, w)` when it is read, e.g. an augmentation. The inputs are
                preprocessed already.
            target_transform: applied to each label, a tensor `()` or, for soft labels, `(k,)`.

        Raises:
            ValueError: the set contains graphs.
        """
        return ImageDataset(self._images, transform, target_transform)

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing of the set. Test images need the same: `syn.preprocess(pixels)` for pixels in [0, 1]."""
        return self.stored.preprocess

    def identity(self) -> str:
        """Return the sha256 of the stored tensors and the preprocessing, equal on every device."""
        return self.stored.identity()

    def __repr__(self) -> str:
        card = self.card
        size = sum(self.stored.stored_bytes().values())
        return sanitize(
            f"<DistilledSet: {card.method} on {card.dataset}, ipc={card.ipc}, {size:,} bytes, {self.folder}>"
        )

    def _repr_png_(self) -> bytes | None:
        """Return the preview picture as PNG, which notebooks display."""
        path: Any = self.folder / PREVIEW
        return path.read_bytes() if path.is_file() else None
