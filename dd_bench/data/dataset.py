"""The real dataset: a training split for distillation methods, and a test split for evaluators only.

Small images are stored as tensors on the device, so loading a batch is one indexing operation. Image folders as large
as ImageNet are read from disk, through the same functions: `inputs`, `pixels` and `batches`.
"""

from __future__ import annotations

import copy
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

import torch
from torch import Tensor

from dd_bench.data.preprocess import Preprocess
from dd_bench.runtime.files import NAME


class Split(ABC):
    """Labelled images, accessed by index."""

    labels: Tensor  # (n,) int64, on the device
    num_classes: int
    shape: tuple[int, int, int]  # (c, h, w)
    attributes: Tensor | None = (
        None  # (n,) int64, e.g. the colour of each image, whose influence evaluators measure
    )

    @abstractmethod
    def pixels(self, index: Tensor) -> Tensor:
        """Return the stored images at `index`, uint8 `(b, c, h, w)` on the device."""

    @abstractmethod
    def inputs(self, index: Tensor) -> Tensor:
        """Return the network inputs at `index`: the preprocessed images, float32 `(b, c, h, w)`."""

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `(inputs (b, c, h, w), labels (b,))` over the whole split, in the order of the samples in the split."""
        for index in torch.split(torch.arange(len(self), device=self.labels.device), size):
            yield self.inputs(index), self.labels[index]

    @abstractmethod
    def to(self, device: torch.device) -> Split:
        """Return the split on another device."""

    @abstractmethod
    def subset(self, index: Tensor) -> Split:
        """Return a split with only the images at `index`."""

    def with_labels(self, labels: Tensor) -> Self:
        """Return a split of the same images with other labels, int64 `(n,)` on the same device."""
        other = copy.copy(self)
        other.labels = labels
        for cached in ("counts", "members"):
            other.__dict__.pop(cached, None)
        return other

    def __len__(self) -> int:
        return int(self.labels.numel())

    @cached_property
    def counts(self) -> Tensor:
        """Number of images per class, `(k,)`, on the CPU."""
        return torch.bincount(self.labels, minlength=self.num_classes).cpu()

    @cached_property
    def members(self) -> Tensor:
        """Image indices by class, `(k, size of the largest class)`, padded with -1."""
        k, device = self.num_classes, self.labels.device
        order = self.labels.argsort(stable=True)
        counts = self.counts.to(device)
        start = counts.cumsum(0) - counts
        position = torch.arange(len(self), device=device) - start[self.labels[order]]
        table = torch.full((k, int(self.counts.max())), -1, dtype=torch.int64, device=device)
        table[self.labels[order], position] = order
        return table

    def of_class(self, c: int) -> Tensor:
        """Return the image indices of class `c` in ascending order."""
        return self.members[c, : int(self.counts[c])]

    def draw(self, per_class: int, generator: torch.Generator) -> Tensor:
        """Draw `per_class` images of every class uniformly without replacement and return indices `(k, per_class)`.

        Raises:
            ValueError: a class has fewer than `per_class` images.
        """
        smallest = int(self.counts.argmin())
        if per_class > int(self.counts[smallest]):
            raise ValueError(
                f"cannot draw {per_class} images per class without replacement: "
                f"class {smallest} has only {int(self.counts[smallest])}"
            )
        members = self.members
        keys = torch.rand(members.shape, generator=generator, device=members.device)
        keys = keys.masked_fill_(members < 0, 2.0)
        return members.gather(1, keys.argsort(dim=1)[:, :per_class])


STORED_INPUTS = 64 << 20
"""On a CPU, the normalised inputs of a split of more than this many bytes are computed again for each batch.

This takes about 1 % of the time of a training step. Stored inputs take four times the memory of the uint8 pixels. On
a GPU, and for ZCA, which costs a matrix product, the inputs are always stored.
"""


class TensorSplit(Split):
    """A split with all pixels in memory on the device, as uint8. Small splits are also stored as float32 inputs."""

    def __init__(
        self,
        pixels: Tensor,
        labels: Tensor,
        num_classes: int,
        preprocess: Preprocess,
        attributes: Tensor | None = None,
    ):
        """Create a split from `pixels`, uint8 `(n, c, h, w)`, and `labels`, int64 `(n,)`, on the same device."""
        self._pixels, self.labels, self.num_classes = pixels, labels, num_classes
        self.attributes = attributes
        self._preprocess = preprocess
        self.shape = (int(pixels.shape[1]), int(pixels.shape[2]), int(pixels.shape[3]))
        self._stores_inputs = (
            not preprocess.per_pixel or pixels.device.type != "cpu" or 4 * pixels.numel() <= STORED_INPUTS
        )

    @cached_property
    def _inputs(self) -> Tensor:
        # The first access may be inside inference_mode, and autograd cannot use inference tensors later.
        with torch.inference_mode(False), torch.no_grad():
            inputs = torch.empty(self._pixels.shape, device=self._pixels.device)
            for part, pixels in zip(inputs.split(4096), self._pixels.split(4096), strict=True):
                part.copy_(self._preprocess(pixels.float() / 255))
            return inputs

    def pixels(self, index: Tensor) -> Tensor:
        """See `Split`."""
        return self._pixels[index]

    def inputs(self, index: Tensor) -> Tensor:
        """See `Split`."""
        return (
            self._inputs[index] if self._stores_inputs else self._preprocess(self.pixels(index).float() / 255)
        )

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Split`. Batches of stored inputs are views, not copies."""
        if not self._stores_inputs:
            yield from super().batches(size)
            return
        yield from zip(torch.split(self._inputs, size), torch.split(self.labels, size), strict=True)

    def to(self, device: torch.device) -> TensorSplit:
        """See `Split`."""
        attributes = None if self.attributes is None else self.attributes.to(device)
        return TensorSplit(
            self._pixels.to(device), self.labels.to(device), self.num_classes, self._preprocess, attributes
        )

    def subset(self, index: Tensor) -> TensorSplit:
        """See `Split`."""
        attributes = None if self.attributes is None else self.attributes[index]
        return TensorSplit(
            self._pixels[index], self.labels[index], self.num_classes, self._preprocess, attributes
        )


@dataclass(frozen=True)
class RealSet:
    """A real dataset on a device.

    Attributes:
        name: the dataset's name, as in `conf/dataset/`.
        train: the training split, the only split that a distillation method can access.
        class_names: names in label order. A synthetic set that was distilled with another order cannot be evaluated.
        preprocess: invertible map from pixels in [0, 1] to network inputs.
        flip: whether a horizontal flip preserves the class (it does not for digits).
        digest: sha256 of the class names and of the training and test images, before `val` is cut off. For a folder
            of images it covers the files instead, see `dd_bench.data.image_folder`.
        licence, citation: copied to the card of every set distilled from this one.
        val: a stratified validation split cut from the training data, or None.
        modality: `image`, `graph` or `node`.
        overrides: command-line overrides that load the set again. Empty for a set created from tensors in Python.
        scored: the split that `test` returns: `test`, or `validation` after `validation_as_test`.
        others: the training split of the classes that `dataset.classes` left out, for backbones that have not seen the
            classes of this set; None without a selection.
    """

    name: str
    train: Split
    class_names: tuple[str, ...]
    preprocess: Preprocess
    flip: bool
    digest: str
    licence: str
    citation: str
    val: Split | None = None
    _test: Split | None = None
    modality: str = "image"
    overrides: tuple[str, ...] = ()
    scored: Literal["test", "validation"] = "test"
    others: RealSet | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless the name can be a part of file names and URLs."""
        if not re.fullmatch(NAME, self.name):
            raise ValueError(
                f"the name of a dataset must contain only letters, digits, _ . + and -, got {self.name!r}. "
                "Example: dataset.name=my_images"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes k."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Image shape (c, h, w)."""
        return self.train.shape

    @property
    def test(self) -> Split:
        """The test split.

        Raises:
            RuntimeError: this set was returned by `train_only`, e.g. for a method, and has no test split.
        """
        if self._test is None:
            raise RuntimeError(
                f"the test split of {self.name!r} is reserved for evaluators. A method must use `real.train` only. "
                "To tune on held-out data, use a validation split: dataset.val_fraction=0.1"
            )
        return self._test

    def to(self, device: torch.device) -> RealSet:
        """Return the same set on another device."""
        splits = {
            n: s and s.to(device)
            for n, s in (
                ("train", self.train),
                ("val", self.val),
                ("_test", self._test),
                ("others", self.others),
            )
        }
        return replace(self, **splits)  # type: ignore[arg-type]

    def train_only(self) -> RealSet:
        """Return the view passed to methods: the same set without its test and validation splits."""
        return replace(self, _test=None, val=None)

    def validation_as_test(self) -> RealSet:
        """Return the set without its test split: `test` is the validation split. For the trials of `dd-bench tune`.

        The digest differs, so no content key of a set, teacher or record equals one of the benchmark.

        Raises:
            ValueError: there is no validation split.
        """
        if self.val is None:
            raise ValueError(
                f"{self.name} must have a validation split, got none. Use dataset.val_fraction=0.1"
            )
        text = f"{self.digest}, without {len(self.val)} of {len(self.train) + len(self.val)} training samples"
        digest = hashlib.sha256(text.encode()).hexdigest()
        return replace(self, val=None, _test=self.val, digest=digest, scored="validation")


def content_digest(arrays: list[Tensor], class_names: tuple[str, ...]) -> str:
    """Return the sha256 of the class names in label order, and of each array's dtype, shape and bytes."""
    digest = hashlib.sha256("\x1f".join(class_names).encode())
    for array in arrays:
        digest.update(f"{array.dtype}{tuple(array.shape)}".encode())
        digest.update(array.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def tensor_set(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    class_names: tuple[str, ...],
    preprocess: Preprocess,
    flip: bool,
    licence: str,
    citation: str,
    device: torch.device,
    val_fraction: float,
    digest: str | None = None,
) -> RealSet:
    """Build a `RealSet` from in-memory tensors.

    Args:
        name: the dataset's name.
        train: pixels, uint8 `(n, c, h, w)`, and labels, integers `(n,)`.
        test: like `train`.
        class_names: see `RealSet`.
        preprocess: see `RealSet`.
        flip: see `RealSet`.
        licence: see `RealSet`.
        citation: see `RealSet`.
        device: where the tensors are stored.
        val_fraction: fraction in [0, 1) of each class's training images, taken from the end, that moves to `val`.
        digest: digest of the dataset; None computes it from the tensors.

    Raises:
        ValueError: wrong shapes or dtypes, labels out of range, a class without training images, or an invalid
            `val_fraction`.
    """
    k = len(class_names)
    for split, (pixels, labels) in (("train", train), ("test", test)):
        if pixels.dtype != torch.uint8 or pixels.ndim != 4:
            raise ValueError(
                f"{name} {split}: images must be uint8 (n, c, h, w), got {pixels.dtype} {tuple(pixels.shape)}"
            )
        if len(pixels) != len(labels):
            raise ValueError(
                f"{name} {split}: each image must have one label, got {len(pixels)} images and {len(labels)} labels"
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < k:
            raise ValueError(
                f"{name} {split}: labels must be in 0..{k - 1}, got {int(labels.min())}..{int(labels.max())}"
            )
    train, test = (train[0], train[1].long()), (test[0], test[1].long())  # the digest covers the dtype
    splits = [TensorSplit(x.to(device), y.to(device), k, preprocess) for x, y in (train, test)]
    return real_set(
        name,
        *splits,
        class_names=class_names,
        preprocess=preprocess,
        flip=flip,
        digest=digest or content_digest([*train, *test], class_names),
        licence=licence,
        citation=citation,
        val_fraction=val_fraction,
    )


def real_set(
    name: str,
    train: Split,
    test: Split,
    *,
    class_names: tuple[str, ...],
    preprocess: Preprocess,
    flip: bool,
    digest: str,
    licence: str,
    citation: str,
    val_fraction: float,
) -> RealSet:
    """Build a `RealSet` from any two splits. See `tensor_set` for `val_fraction`.

    Raises:
        ValueError: a class has no training image, or `val_fraction` is not valid.
    """
    missing = (train.counts == 0).nonzero().flatten().tolist()
    if missing:
        raise ValueError(
            f"{name}: each class must have a training image, got none of class {class_names[missing[0]]!r}"
        )
    train, val = cut_validation(train, val_fraction)
    return RealSet(name, train, class_names, preprocess, flip, digest, licence, citation, val, test)


def cut_validation(train: Split, fraction: float) -> tuple[Split, Split | None]:
    """Return `train` without its validation images, and a stratified validation split (None if `fraction` is 0).

    Raises:
        ValueError: `fraction` is outside [0, 1), or a class would have no training image left.
    """
    if not 0 <= fraction < 1:
        raise ValueError(
            f"dataset.val_fraction must be in [0, 1), got {fraction}. Example: dataset.val_fraction=0.1"
        )
    if fraction == 0:
        return train, None
    train_parts, val_parts = [], []
    for c in range(train.num_classes):
        index = train.of_class(c)
        cut = len(index) - max(1, round(fraction * len(index)))
        if cut < 1:
            raise ValueError(
                f"dataset.val_fraction={fraction} leaves no training image of class {c}. Use a smaller fraction"
            )
        train_parts.append(index[:cut])
        val_parts.append(index[cut:])
    return train.subset(torch.cat(train_parts).sort().values), train.subset(
        torch.cat(val_parts).sort().values
    )
