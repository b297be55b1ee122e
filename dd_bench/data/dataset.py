"""The real set: what a method may see (its training split), and what only evaluators may (its test split).

Small images live as tensors on the device, so a batch is an index and nobody waits for a worker process.
Image folders of ImageNet's size stream through the same three calls: `inputs`, `pixels`, `batches`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from dd_bench.data.preprocess import Preprocess


class Split(ABC):
    """Labelled images, addressed by index."""

    labels: Tensor  # (n,) int64, on the device
    num_classes: int
    shape: tuple[int, int, int]  # (c, h, w)

    @abstractmethod
    def pixels(self, index: Tensor) -> Tensor:
        """Returns the images `index` as stored: uint8 `(b, c, h, w)` on the device."""

    @abstractmethod
    def inputs(self, index: Tensor) -> Tensor:
        """Returns the images `index` preprocessed, as a network takes them: float32 `(b, c, h, w)`."""

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields `(inputs (b, c, h, w), labels (b,))` over the whole split, in order."""
        for index in torch.split(torch.arange(len(self), device=self.labels.device), size):
            yield self.inputs(index), self.labels[index]

    @abstractmethod
    def to(self, device: torch.device) -> Split:
        """Return the split on another device."""

    @abstractmethod
    def subset(self, index: Tensor) -> Split:
        """Returns the split that holds only the images `index`."""

    def __len__(self) -> int:
        return int(self.labels.numel())

    @cached_property
    def counts(self) -> Tensor:
        """Number of images of each class, `(k,)`, on the CPU."""
        return torch.bincount(self.labels, minlength=self.num_classes).cpu()

    @cached_property
    def members(self) -> Tensor:
        """Indices of each class's images, `(k, largest class)`, padded with -1."""
        k, device = self.num_classes, self.labels.device
        order = self.labels.argsort(stable=True)
        counts = self.counts.to(device)
        start = counts.cumsum(0) - counts
        position = torch.arange(len(self), device=device) - start[self.labels[order]]
        table = torch.full((k, int(counts.max())), -1, dtype=torch.int64, device=device)
        table[self.labels[order], position] = order
        return table

    def of_class(self, c: int) -> Tensor:
        """Returns the indices of class `c`, ascending."""
        return self.members[c, : int(self.counts[c])]

    def draw(self, per_class: int, generator: torch.Generator) -> Tensor:
        """Draws `per_class` images of every class, uniformly without replacement: indices `(k, per_class)`.

        Raises:
            ValueError: a class has fewer than `per_class` images.
        """
        smallest = int(self.counts.argmin())
        if per_class > int(self.counts[smallest]):
            raise ValueError(
                f"asked for {per_class} images per class without replacement, "
                f"but class {smallest} has {int(self.counts[smallest])}"
            )
        members = self.members
        keys = torch.rand(members.shape, generator=generator, device=members.device)
        keys = keys.masked_fill_(members < 0, 2.0)
        return members.gather(1, keys.argsort(dim=1)[:, :per_class])


class TensorSplit(Split):
    """A split whose images lie on the device: uint8 as stored, and float32 once it is asked for."""

    def __init__(self, pixels: Tensor, labels: Tensor, num_classes: int, preprocess: Preprocess):
        """Takes `pixels` uint8 `(n, c, h, w)` and `labels` int64 `(n,)` on one device."""
        self._pixels, self.labels, self.num_classes = pixels, labels, num_classes
        self._preprocess = preprocess
        self.shape = (int(pixels.shape[1]), int(pixels.shape[2]), int(pixels.shape[3]))

    @cached_property
    def _inputs(self) -> Tensor:
        # Whoever asks first may be inside inference_mode, and an inference tensor cannot be trained on later.
        with torch.inference_mode(False), torch.no_grad():
            return torch.cat([self._preprocess(p.float() / 255) for p in torch.split(self._pixels, 4096)])

    def pixels(self, index: Tensor) -> Tensor:
        """See `Split`."""
        return self._pixels[index]

    def inputs(self, index: Tensor) -> Tensor:
        """See `Split`."""
        return self._inputs[index]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Split`; slices, so nothing is copied."""
        yield from zip(torch.split(self._inputs, size), torch.split(self.labels, size), strict=True)

    def to(self, device: torch.device) -> TensorSplit:
        """See `Split`."""
        return TensorSplit(
            self._pixels.to(device), self.labels.to(device), self.num_classes, self._preprocess
        )

    def subset(self, index: Tensor) -> TensorSplit:
        """See `Split`."""
        return TensorSplit(self._pixels[index], self.labels[index], self.num_classes, self._preprocess)


@dataclass(frozen=True)
class RealSet:
    """A real dataset on a device.

    Attributes:
        name: the dataset's name, as in `conf/dataset/`.
        train: the training split, the only one a method sees.
        class_names: in label order; a set distilled under another order is refused.
        preprocess: pixels in [0, 1] to network inputs, invertible.
        flip: whether a horizontal flip keeps the class (digits: no).
        digest: sha256 of both splits' contents and the class names; the same whatever is held out as `val`.
            A folder of images hashes its file list instead, see `dd_bench.data.image_folder`.
        licence, citation: carried into the card of every set distilled from it.
        val: a stratified slice cut from train, if the configuration asks for one.
        overrides: words of the command line that load the set again; empty for tensors that were given in Python.
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
            RuntimeError: this is the view that methods get, which has none.
        """
        if self._test is None:
            raise RuntimeError(
                f"the test split of {self.name!r} is for evaluators; a method sees only `real.train`. "
                "To select something, cut a validation split: dataset.val_fraction=0.1"
            )
        return self._test

    def to(self, device: torch.device) -> RealSet:
        """Return the same set on another device."""
        splits = {
            n: s and s.to(device)
            for n, s in (("train", self.train), ("val", self.val), ("_test", self._test))
        }
        return replace(self, **splits)  # type: ignore[arg-type]

    def train_only(self) -> RealSet:
        """Returns the view handed to methods: the same set without its test and validation splits."""
        return replace(self, _test=None, val=None)


def content_digest(arrays: list[Tensor], class_names: tuple[str, ...]) -> str:
    """Returns the sha256 of the arrays (dtype, shape and bytes) and of the class names in order."""
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
    """Builds a `RealSet` of tensors: `(pixels uint8 (n, c, h, w), labels int64 (n,))` for train and test.

    `val_fraction` in [0, 1) of each class, the last images of the training split in order, becomes `val`
    and leaves `train`: methods never see it. `digest` is of the tensors unless the dataset has a better one.

    Raises:
        ValueError: labels out of range, a class without training images, or a fraction out of range.
    """
    k = len(class_names)
    for split, (pixels, labels) in (("train", train), ("test", test)):
        if pixels.dtype != torch.uint8 or pixels.ndim != 4:
            raise ValueError(
                f"{name} {split}: wanted uint8 images (n, c, h, w), got {pixels.dtype} {tuple(pixels.shape)}"
            )
        if len(pixels) != len(labels):
            raise ValueError(f"{name} {split}: {len(pixels)} images but {len(labels)} labels")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < k:
            raise ValueError(
                f"{name} {split}: labels span {int(labels.min())}..{int(labels.max())}, there are {k} classes"
            )
    train, test = (train[0], train[1].long()), (test[0], test[1].long())  # so that the digest sees one dtype
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
    """Builds a `RealSet` of any two splits; see `tensor_set` for `val_fraction`.

    Raises:
        ValueError: a class without training images, or a fraction out of range.
    """
    missing = (train.counts == 0).nonzero().flatten().tolist()
    if missing:
        raise ValueError(f"{name}: no training image of class {class_names[missing[0]]!r}")
    kept, held = cut_validation(train, val_fraction)
    return RealSet(name, kept, class_names, preprocess, flip, digest, licence, citation, held, test)


def cut_validation(train: Split, fraction: float) -> tuple[Split, Split | None]:
    """Splits `train` into what methods see and a stratified validation slice (None when `fraction` is 0).

    Raises:
        ValueError: `fraction` is outside [0, 1), or leaves a class empty.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"dataset.val_fraction={fraction} is outside [0, 1)")
    if fraction == 0:
        return train, None
    keep, hold = [], []
    for c in range(train.num_classes):
        index = train.of_class(c)
        cut = len(index) - max(1, round(fraction * len(index)))
        if cut < 1:
            raise ValueError(f"dataset.val_fraction={fraction} leaves no training image of class {c}")
        keep.append(index[:cut])
        hold.append(index[cut:])
    return train.subset(torch.cat(keep).sort().values), train.subset(torch.cat(hold).sort().values)
