"""Natural images with compensators: the sets of INFER."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.inputs import LazyInputs
from dd_bench.data.labels import label_mode
from dd_bench.data.preprocess import Preprocess
from dd_bench.synthetic.base import (
    Space,
    SyntheticImages,
    SyntheticSet,
    check_finite,
    check_shape,
    require_tensors,
)
from dd_bench.synthetic.images import ImageSet, to_inputs
from dd_bench.synthetic.method_limits import COMPENSATORS


@dataclass(frozen=True)
class CompensatedSet(SyntheticImages):
    """Natural images with compensators that are added to them, as in INFER (Zhang et al., ICLR 2025).

    A natural set contains one image of each class. Each of its compensators is added to all images of the set,
    which gives one more image of every class. S natural sets of k classes with M compensators each store S k + S M
    images, and networks train on (M + 1) S k images. A compensated image has the label of its natural image.

    The natural images can also be the images of another synthetic set, in any space and with soft labels.

    Attributes:
        images: the natural images `(S k, c, h, w)`, grouped by natural set; dtype and range as in `ImageSet`.
        labels: int64 `(S k,)` or float32 `(S k, k)`. With hard labels, a natural set has one image of each class.
        compensators: float16 `(S, M, c, h, w)`, added to network inputs.
        source: indices of the natural images in the training split; None if they are not training images.
        lr: a learning rate that was distilled with the images, or None.
        space: "pixel", "unit" or "input", see `ImageSet`.
    """

    kind: ClassVar[str] = "compensated"
    main_tensors = "images, labels, compensators"

    images: Tensor
    labels: Tensor
    compensators: Tensor
    class_names: tuple[str, ...]
    preprocess: Preprocess
    source: tuple[int, ...] | None
    lr: float | None = None
    space: Space = "pixel"

    def __post_init__(self) -> None:
        """Raise ValueError unless all tensors have the shapes, dtypes and ranges in the docstring of the class."""
        self._natural()  # checks the images, the labels and the other fields of a set of images
        u, k = self.compensators, len(self.class_names)
        if u.dtype != torch.float16 or u.ndim != 5 or u.shape[2:] != self.images.shape[1:]:
            raise ValueError(
                "compensators must be float16 (natural sets, compensators per set, c, h, w) with (c, h, w) = "
                f"{tuple(self.images.shape[1:])}, got {u.dtype} {tuple(u.shape)}"
            )
        if len(self.images) != len(u) * k or not len(u):
            raise ValueError(
                "the number of natural images must be the number of natural sets (>= 1) times the number of classes, "
                f"got {len(self.images)} images, {len(u)} natural sets and {k} classes"
            )
        check_finite("values of the compensators", u)
        if label_mode(self.labels) == "soft":
            return
        for number, labels in enumerate(self.labels.view(len(u), k)):
            if len(labels.unique()) != k:
                raise ValueError(
                    f"natural set {number} must contain one image of each of the {k} classes, "
                    f"got images of only {len(labels.unique())} classes"
                )

    @classmethod
    def of(cls, real: RealSet, index: Tensor, compensators: Tensor) -> CompensatedSet:
        """Build a set from the training images `index (S k,)` and `compensators (S, M, c, h, w)`; see the class."""
        return cls.on(ImageSet.coreset(real, index), compensators)

    @classmethod
    def on(cls, natural: ImageSet, compensators: Tensor) -> CompensatedSet:
        """Build a set from natural images, grouped by natural set, and `compensators (S, M, c, h, w)`; see the class.

        Raises:
            ValueError: a stored image of `natural` is decoded to several training images.
        """
        if natural.factor > 1 or natural.canvas > 1:
            raise ValueError(
                "each natural image must be one training image, got a set with "
                f"factor={natural.factor} and canvas={natural.canvas}"
            )
        return cls(
            natural.images,
            natural.labels,
            compensators.detach().cpu().half().contiguous(),
            natural.class_names,
            natural.preprocess,
            natural.source,
            natural.lr,
            natural.space,
        )

    def _natural(self) -> ImageSet:
        """Return the natural images without the compensators."""
        return ImageSet(
            self.images,
            self.labels,
            self.space,
            self.class_names,
            self.preprocess,
            source=self.source,
            lr=self.lr,
        )

    def materialise(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """See `SyntheticSet`. The natural images come first, then the compensated images, clamped to [black, white]."""
        inputs, labels = self.materialise_lazily(device)
        return inputs[torch.arange(len(inputs), device=device)], labels

    def materialise_lazily(self, device: torch.device) -> tuple[LazyInputs, Tensor]:
        """See `SyntheticSet`."""
        m = self.compensators.shape[1]
        labels = torch.cat([self.labels.to(device)] * (m + 1))
        pick = partial(self._pick, self.images.to(device), self.compensators.to(device))
        return LazyInputs(len(labels), device, pick), labels

    def _pick(self, images: Tensor, compensators: Tensor, index: Tensor) -> Tensor:
        added, which = index // len(images) - 1, index % len(images)  # -1: the natural image itself
        x = to_inputs(images[which], self.space, self.preprocess)
        low, high = (self.preprocess(torch.full_like(x[:1], v)) for v in (0.0, 1.0))
        u = compensators[which // len(self.class_names), added.clamp_min(0)].float()
        compensated = torch.minimum(torch.maximum(x + u, low), high)
        return torch.where((added < 0).view(-1, 1, 1, 1), x, compensated)

    def controls(self) -> dict[str, SyntheticSet]:
        """See `SyntheticSet`. There is one control set, `natural`: the natural images without the compensators."""
        return {"natural": replace(self._natural(), source=None, lr=None)}

    def tensors(self) -> dict[str, Tensor]:
        """See `SyntheticSet`."""
        return {"images": self.images, "labels": self.labels, "compensators": self.compensators}

    def describe_tensors(self) -> str:
        """See `SyntheticSet`."""
        k, m = self.compensators.shape[:2]
        kind = "uint8" if self.space == "pixel" else f"in space {self.space!r}"
        return f"""Images are {list(self.images.shape[1:])}, {kind}: {k} sets of one image a class. `compensators[i, j]`
is added to the images of set i after `card.json`'s `preprocess`, and the sum clamped to what black and white become:
{m} more images of each."""

    def config(self) -> dict[str, Any]:
        """See `SyntheticSet`."""
        return {
            "image_shape": list(self.images.shape[1:]),
            "source": None if self.source is None else list(self.source),
            **({"space": self.space} if self.space != "pixel" else {}),
            **({"lr": self.lr} if self.lr is not None else {}),
        }

    def stored_samples(self) -> Tensor:
        """See `SyntheticSet`. A compensator counts as one image, which all classes share."""
        k, m = self.compensators.shape[:2]
        c = len(self.class_names)
        return torch.full((c,), k * (c + m) / max(c, 1), dtype=torch.float64)

    def decoding(self) -> dict[str, int | str]:
        """See `SyntheticSet`. These are the compensators of each natural set."""
        return {COMPENSATORS: self.compensators.shape[1]}

    def describe_samples(self) -> str:
        """See `SyntheticSet`."""
        k, m = self.compensators.shape[:2]
        return f": {k} natural sets of {len(self.class_names)} images and {m} compensators each"

    @classmethod
    def restore(
        cls,
        config: dict[str, Any],
        tensors: dict[str, Tensor],
        class_names: tuple[str, ...],
        preprocess: Preprocess,
    ) -> Self:
        """See `SyntheticSet`."""
        require_tensors(tensors, "images", "labels", "compensators")
        shape = list(tensors["images"].shape[1:])
        check_shape(shape, config, preprocess)
        return cls(
            tensors["images"],
            tensors["labels"],
            tensors["compensators"],
            class_names,
            preprocess,
            None if config["source"] is None else tuple(config["source"]),
            config.get("lr"),
            config.get("space", "pixel"),
        )

    def pictures(self) -> tuple[Tensor, Tensor]:
        """See `SyntheticSet`. Each natural image is followed by its compensated versions."""
        m = self.compensators.shape[1]
        inputs, labels = self.materialise(torch.device("cpu"))
        pixels = self.preprocess.inverse(inputs).clamp(0, 1).unflatten(0, (m + 1, -1))
        classes = labels[: len(self.images)]
        classes = classes if classes.ndim == 1 else classes.argmax(1)
        return pixels.transpose(0, 1).flatten(0, 1), classes.repeat_interleave(m + 1)
