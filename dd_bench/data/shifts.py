"""Real-world training data: a long tail, label noise, or a colour bias, added to any image dataset.

The keys of `Shifts` are keys of every image dataset, e.g. `dataset.imbalance=50`. They change the training split and a
validation split cut from it. The test split stays balanced and its labels stay correct. All draws depend only on the
dataset, not on the seed of the run, so that every method gets the same data.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from torch import Tensor

from dd_bench.data.colour_bias import balanced_colours, biased_colours, coloured_pixels
from dd_bench.data.dataset import RealSet, Split, TensorSplit
from dd_bench.data.label_noise import KINDS, NoiseKind, noisy_labels
from dd_bench.data.long_tail import long_tailed_index
from dd_bench.data.preprocess import channel_statistics, fit_preprocess

_EXAMPLES = {"imbalance": 10, "label_noise": 0.2, "label_noise_kind": "symmetric", "colour_bias": 0.9}


@dataclass(frozen=True)
class Shifts:
    """The differences between training and test data that are added to a dataset.

    Attributes:
        imbalance: size of the first class divided by that of the last one, at least 1; see `long_tailed_index`. None
            keeps all images.
        label_noise: share of wrong training labels in each class, in [0, 1).
        label_noise_kind: `symmetric` or `asymmetric`; see `noisy_labels`.
        colour_bias: share of the training images that have the colour of their class, in [0, 1]; see
            `dd_bench.data.colour_bias`. None leaves the images grey.
    """

    imbalance: float | None = None
    label_noise: float = 0.0
    label_noise_kind: NoiseKind = "symmetric"
    colour_bias: float | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if a value is out of range."""
        rate, bias, imbalance = self.label_noise, self.colour_bias, self.imbalance
        if imbalance is not None and not (_is_number(imbalance) and 1 <= imbalance < float("inf")):
            raise _wrong("imbalance", "a number >= 1 or null", imbalance)
        if not (_is_number(rate) and 0 <= rate < 1):
            raise _wrong("label_noise", "in [0, 1)", rate)
        if self.label_noise_kind not in KINDS:
            raise _wrong("label_noise_kind", " or ".join(KINDS), self.label_noise_kind)
        if self.label_noise_kind != "symmetric" and not rate:
            kind = self.label_noise_kind
            raise ValueError(
                f"dataset.label_noise_kind={kind} has no effect without label noise, got dataset.label_noise={rate}. "
                f"Use dataset.label_noise=0.2 dataset.label_noise_kind={kind}, or dataset.label_noise_kind=symmetric"
            )
        if bias is not None and not (_is_number(bias) and 0 <= bias <= 1):
            raise _wrong("colour_bias", "in [0, 1] or null", bias)

    @classmethod
    def take_from(cls, values: dict[str, Any]) -> Self:
        """Remove the keys of the shifts from the configuration of a dataset, and return the shifts.

        Raises:
            ValueError: a value is out of range.
        """
        return cls(**{f.name: values.pop(f.name) for f in fields(cls) if f.name in values})

    def apply(self, real: RealSet) -> RealSet:
        """Return the dataset with these shifts, under another name and with another digest.

        Without shifts, the result is `real` itself. Otherwise the name ends in e.g. `-lt50`, and the digest is a hash
        of the digest of `real` and of the values. The order is: long tail, colours, label noise. Colours therefore
        follow the true classes.

        Raises:
            ValueError: the dataset has no images, only one class, or, for colours, no greyscale images in memory.
        """
        changes = self._changes()
        if not changes:
            return real
        if real.modality != "image" or real.num_classes < 2:
            raise ValueError(
                "dataset.imbalance, dataset.label_noise and dataset.colour_bias require images of two or more classes, "
                f"got {real.num_classes} class(es) of {real.modality}s in {real.name}. Use another dataset"
            )
        if self.imbalance is not None and self.imbalance > 1:
            real = self._long_tailed(real, self.imbalance)
        if self.colour_bias is not None:
            real = self._coloured(real, self.colour_bias)
        if self.label_noise:
            real = self._noisy(real)
        text = ", ".join([real.digest, *(description for _, description in changes)])
        name = "-".join([real.name, *(suffix for suffix, _ in changes)])
        return replace(real, name=name, digest=hashlib.sha256(text.encode()).hexdigest())

    def _changes(self) -> list[tuple[str, str]]:
        """Return the suffix of the name and the text for the digest of each shift."""
        changes = []
        if self.imbalance is not None and self.imbalance > 1:
            changes.append((f"lt{self.imbalance:g}", f"imbalance {float(self.imbalance)!r}"))
        if self.colour_bias is not None:
            changes.append((f"colour{self.colour_bias:g}", f"colour bias {float(self.colour_bias)!r}"))
        if self.label_noise:
            kind = self.label_noise_kind
            suffix = f"{kind.removesuffix('metric')}{self.label_noise:g}"
            changes.append((suffix, f"{kind} label noise {float(self.label_noise)!r}"))
        return changes

    def _long_tailed(self, real: RealSet, imbalance: float) -> RealSet:
        def subset(split: Split, part: str) -> Split:
            return split.subset(long_tailed_index(split, imbalance, part))

        return replace(
            real,
            train=subset(real.train, "train"),
            val=None if real.val is None else subset(real.val, "val"),
        )

    def _noisy(self, real: RealSet) -> RealSet:
        def relabelled(split: Split, part: str) -> Split:
            k, kind = real.num_classes, self.label_noise_kind
            return split.with_labels(noisy_labels(split.labels, k, self.label_noise, kind, part))

        return replace(
            real,
            train=relabelled(real.train, "train"),
            val=None if real.val is None else relabelled(real.val, "val"),
        )

    def _coloured(self, real: RealSet, bias: float) -> RealSet:
        """Colour all splits. The preprocessing is fitted to the coloured training images. `others` is removed."""
        k = real.num_classes
        if real.shape[0] != 1:
            raise ValueError(
                f"dataset.colour_bias requires greyscale images, but {real.name} has {real.shape[0]} channels. "
                "Use dataset.colour_bias=null"
            )
        colours = biased_colours(real.train.labels, k, bias, "train")
        pixels = coloured_pixels(real.train, colours)
        mean, std = channel_statistics(pixels)
        preprocess = fit_preprocess(
            real.preprocess.kind, pixels, mean=mean, std=std, device=real.train.labels.device
        )

        def split(grey: Split, colours: Tensor) -> Split:
            return TensorSplit(coloured_pixels(grey, colours), grey.labels, k, preprocess, colours)

        val = real.val
        return replace(
            real,
            preprocess=preprocess,
            train=TensorSplit(pixels, real.train.labels, k, preprocess, colours),
            val=None if val is None else split(val, biased_colours(val.labels, k, bias, "val")),
            _test=split(real.test, balanced_colours(real.test.labels, k, "test")),
            others=None,  # they are grey
        )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _wrong(key: str, expected: str, value: Any) -> ValueError:
    return ValueError(
        f"dataset.{key} must be {expected}, got {value!r}. Example: dataset.{key}={_EXAMPLES[key]}"
    )
