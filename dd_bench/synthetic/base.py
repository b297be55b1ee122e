"""Base classes of synthetic sets, and checks of tensors that are read from a file."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from dd_bench.data.dataset import content_digest
from dd_bench.data.inputs import MATERIALISE_LIMIT, Inputs, LazyInputs
from dd_bench.data.preprocess import Preprocess

Space = Literal["pixel", "unit", "input"]


class SyntheticSet(ABC):
    """A distilled set: the stored tensors, and the inputs and labels that networks are trained on."""

    kind: ClassVar[str]
    modality: ClassVar[str] = "image"
    task: ClassVar[str] = "image-classification"  # Hugging Face's name
    protocol: ClassVar[str] = "dsa-1000"  # in the README of sets that no run has made
    main_tensors: ClassVar[str] = "images, labels"  # listed in the set's README
    class_names: tuple[str, ...]
    preprocess: Preprocess
    labels: Tensor
    lr: float | None
    """The learning rate that was distilled with the set, or None."""
    whole: bool = False
    """Whether this is the whole training set. Its ipc is then not checked, but see `check_whole`."""
    exact_ipc: ClassVar[bool] = False
    """Whether the set must store exactly ipc samples per class, not at most."""

    @abstractmethod
    def materialise(self, device: torch.device) -> tuple[Any, Tensor]:
        """Return the training inputs (images: float32 `(n, c, h, w)`) and their labels, on `device`."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return all stored tensors by name."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return the JSON-serialisable fields of the set. Together with `tensors()` they define the set."""

    @classmethod
    @abstractmethod
    def restore(
        cls,
        config: dict[str, Any],
        tensors: dict[str, Tensor],
        class_names: tuple[str, ...],
        preprocess: Preprocess,
    ) -> Self:
        """Rebuild a set from `config()` and `tensors()`. Raise ValueError if they are not valid."""

    @abstractmethod
    def pictures(self) -> tuple[Tensor, Tensor]:
        """Return images for the preview: pixels in [0, 1] `(n, c, h, w)` and their classes `(n,)`."""

    @abstractmethod
    def describe_tensors(self) -> str:
        """Return the README's description of the stored tensors, for readers without this package."""

    @abstractmethod
    def stored_samples(self) -> Tensor:
        """Return the number of stored samples of each class, float64 `(k,)`.

        One sample of images is an array of the shape of one dataset image. A larger array counts as many samples as its
        size, whatever is decoded from it. One sample of graphs is one training graph, or one set of trees. Samples that
        all classes share, and samples with soft labels, count equally for all classes.
        """

    def describe_samples(self) -> str:
        """Return how the stored samples are counted, for the message of `check_ipc`; '' if it is obvious."""
        return ""

    def check_ipc(self, ipc: int) -> None:
        """Raise ValueError unless the set stores at most `ipc` samples of every class, see `stored_samples`.

        Sets of images with `exact_ipc` must store exactly `ipc`.
        """
        counts = self.stored_samples()
        wrong = (counts != ipc) if self.exact_ipc else counts > ipc
        if self.whole or not bool(wrong.any()):
            return
        c = int(torch.where(wrong, counts, -1).argmax())
        same = not self.exact_ipc or bool((counts == counts[0]).all())
        hint = f"Use ipc={math.ceil(float(counts.max()))}" if same else "Store equally many of every class"
        raise ValueError(
            f"with ipc={ipc}, a set must store {'' if self.exact_ipc else 'at most '}{ipc} {self.modality}s per class, "
            f"got {float(counts[c]):g} of class {self.class_names[c]!r}{self.describe_samples()}. {hint}"
        )

    def check_whole(self, train: Tensor) -> None:
        """Check that a set with `whole` has as many samples of each class as the training split.

        Args:
            train: classes of the training split, int64 `(m,)`.

        Raises:
            ValueError: the set has `whole`, and other numbers of samples.
        """
        if not self.whole:
            return
        k = len(self.class_names)
        own = self.labels[self.labels >= 0]  # negative: nodes without a class
        stored, expected = (torch.bincount(labels.cpu(), minlength=k) for labels in (own, train))
        if not torch.equal(stored, expected):
            c = int((stored != expected).int().argmax())
            raise ValueError(
                f"the set has whole=true, so it must have all {len(train)} training {self.modality}s, got "
                f"{len(self.labels)}; of class {self.class_names[c]!r} it must have {int(expected[c])}, got "
                f"{int(stored[c])}. If it was distilled with another validation split, use the same "
                "dataset.val_fraction"
            )

    def decoding(self) -> dict[str, int | str]:
        """Return the parameters that control what networks are trained on, and their values; see `method_limits`.

        They are the numbers of training samples that a stored sample is decoded to, and the use of stored weights.
        """
        return {}

    def controls(self) -> dict[str, SyntheticSet]:
        """Return sets to compare with this set, by name. Each is this set without some of its tensors."""
        return {}

    def size_metrics(self) -> dict[str, int]:
        """Return the sizes, other than bytes, that papers use to compare sets of this kind."""
        return {}

    def identity(self) -> str:
        """Return the sha256 of all stored tensors and fields and of the preprocessing; the same on every device."""
        tensors = [t for _, t in sorted(self.tensors().items())]
        text = json.dumps([self.kind, self.config(), self.preprocess.digest], sort_keys=True)
        return content_digest(tensors, (*self.class_names, text))

    def stored_bytes(self) -> dict[str, int]:
        """Return the size in bytes of every stored tensor, including the tensors of the preprocessing."""
        parts = {**self.tensors(), **{f"preprocess.{k}": v for k, v in self.preprocess.tensors().items()}}
        return {name: t.numel() * t.element_size() for name, t in sorted(parts.items())}


class SyntheticImages(SyntheticSet):
    """A set whose training samples are images."""

    @abstractmethod
    def materialise(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """See `SyntheticSet`."""

    @abstractmethod
    def materialise_lazily(self, device: torch.device) -> tuple[LazyInputs, Tensor]:
        """Like `materialise`, but decodes inputs lazily, batch by batch."""

    def network_inputs(self, device: torch.device) -> tuple[Inputs, Tensor]:
        """Return inputs and labels. Inputs are decoded lazily if they exceed `MATERIALISE_LIMIT` bytes."""
        inputs, labels = self.materialise_lazily(device)
        first = inputs[torch.zeros(1, dtype=torch.int64, device=device)]
        if len(inputs) * first.numel() * first.element_size() > MATERIALISE_LIMIT:
            return inputs, labels
        return self.materialise(device)


def require_tensors(tensors: dict[str, Tensor], *names: str) -> None:
    """Raise ValueError if a required tensor is missing."""
    if missing := sorted(set(names) - set(tensors)):
        raise ValueError(f"the file must contain the tensor {missing[0]!r}, got only {sorted(tensors)}")


def check_shape(shape: list[int], config: dict[str, Any], preprocess: Preprocess) -> None:
    """Raise ValueError if `shape (c, h, w)` is not that of the card, or the preprocessing does not accept it."""
    if shape != config["image_shape"]:
        raise ValueError(f"images must have shape {config['image_shape']} as in the card, got {shape}")
    if not preprocess.accepts(shape):
        raise ValueError(f"the preprocessing {preprocess.config()} does not accept images of shape {shape}")


def check_finite(what: str, values: Tensor) -> tuple[float, float]:
    """Return the smallest and the largest value. Needs no temporary tensor, unlike `torch.isfinite`.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    low, high = (float(v) for v in values.aminmax())  # both are NaN if a value is NaN
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"all {what} must be finite")
    return low, high


def check_source(source: Sequence[int] | None, labels: Tensor, whole: bool = False) -> None:
    """Raise ValueError unless `source` is None or has the index of a training sample for each label.

    For the whole training set (`whole`), labels must be classes, and the indices must be 0, 1, ..., n - 1.
    """
    n = len(labels)
    if whole and (labels.ndim != 1 or source is None or tuple(source) != tuple(range(n))):
        raise ValueError(
            f"the whole training set (whole=true) must have hard labels and the source 0, 1, ..., {n - 1}, got labels "
            f"{tuple(labels.shape)} and source {str(source)[:100]}"
        )
    if source is None:
        return
    if len(source) != n or any(type(i) is not int or not 0 <= i < 2**63 for i in source):
        raise ValueError(
            f"source must have {n} indices of training samples, got {len(source)}: {str(source)[:100]}"
        )
