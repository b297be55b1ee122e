"""Synthetic sets of images with labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Self, get_args

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.decode import cut, decode, tile
from dd_bench.data.inputs import LazyInputs
from dd_bench.data.labels import check_labels
from dd_bench.data.preprocess import Preprocess
from dd_bench.synthetic.base import (
    Space,
    SyntheticImages,
    check_finite,
    check_shape,
    check_source,
    require_tensors,
)


@dataclass(frozen=True)
class ImageSet(SyntheticImages):
    """Images with hard or soft labels.

    Attributes:
        images: `(n, c, h, w)`: uint8 in space "pixel", values in [0, 1] in "unit", network inputs in "input"; float32,
            or float16 if the set was stored with `method.store=float16`.
        labels: int64 `(n,)` or float32 `(n, k)`.
        space: "pixel", "unit" or "input", see `images`.
        factor: multi-formation factor. A stored image is decoded to factor^2 training images (spaces pixel and unit).
        source: for a coreset, the indices of its images in the training split.
        whole: whether this is the whole training set. Its ipc is then not checked.
        lr: a learning rate that was distilled with the images, or None.
        canvas: a stored image is cut into a grid of canvas^2 training images (spaces unit and input), and counts as
            canvas^2 images of its IPC.
    """

    kind: ClassVar[str] = "images"
    exact_ipc: ClassVar[bool] = True

    images: Tensor
    labels: Tensor
    space: Space
    class_names: tuple[str, ...]
    preprocess: Preprocess
    factor: int = 1
    source: tuple[int, ...] | None = field(default=None)
    whole: bool = False
    lr: float | None = None
    canvas: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError if a tensor or field does not have the shape, dtype or range that the class documents."""
        if self.space not in get_args(Space):
            raise ValueError(f"space must be one of {', '.join(get_args(Space))}, got {self.space!r}")
        if self.images.ndim != 4 or len(self.images) == 0:
            raise ValueError(f"images must be (n, c, h, w) with n >= 1, got {tuple(self.images.shape)}")
        expected = (torch.uint8,) if self.space == "pixel" else (torch.float32, torch.float16)
        if self.images.dtype not in expected:
            raise ValueError(
                f"images in space {self.space!r} must be {' or '.join(map(str, expected))}, got {self.images.dtype}"
            )
        if self.space != "pixel":
            low, high = check_finite("pixels", self.images)
            if self.space == "unit" and (low < -1e-6 or high > 1 + 1e-6):
                raise ValueError(f"pixels in space 'unit' must be in [0, 1], got [{low:.4g}, {high:.4g}]")
        if type(self.factor) is not int or self.factor < 1 or (self.factor > 1 and self.space == "input"):
            raise ValueError(
                "factor must be an integer >= 1, and must be 1 if space is 'input', "
                f"got factor={self.factor!r} in space {self.space!r}"
            )
        if self.lr is not None and not (type(self.lr) is float and 0 < self.lr < float("inf")):
            raise ValueError(f"lr must be a positive finite float, got {self.lr!r}")
        canvas, sides = self.canvas, self.images.shape[2:]
        if (
            type(canvas) is not int
            or canvas < 1
            or (canvas > 1 and (self.factor > 1 or self.space == "pixel"))
        ):
            raise ValueError(
                "canvas must be an integer >= 1, and must be 1 if space is 'pixel' or factor > 1, "
                f"got canvas={canvas!r} with factor={self.factor} in space {self.space!r}"
            )
        if any(side % canvas for side in sides):
            raise ValueError(f"canvas must divide the image size {tuple(sides)}, got {canvas}")
        if self.factor > min(sides):
            raise ValueError(
                f"factor must be at most the shorter side of the images, {min(sides)}, because a tile has at least one "
                f"pixel, got {self.factor}"
            )
        check_labels(self.labels, len(self.images), len(self.class_names))
        check_source(self.source, self.labels, self.whole)

    @classmethod
    def of(
        cls,
        real: RealSet,
        images: Tensor,
        labels: Tensor,
        space: Space,
        factor: int = 1,
        *,
        lr: float | None = None,
        canvas: int = 1,
    ) -> ImageSet:
        """Build a set that was distilled from `real`, with all tensors on the CPU."""
        images, labels = images.detach().cpu().contiguous(), labels.detach().cpu().contiguous()
        names, preprocess = real.class_names, real.preprocess
        return cls(images, labels, space, names, preprocess, factor, lr=lr, canvas=canvas)

    @classmethod
    def coreset(cls, real: RealSet, index: Tensor, whole: bool = False) -> ImageSet:
        """Build the set of the training images `index (n,)`, stored losslessly as uint8."""
        pixels, labels = real.train.pixels(index).cpu(), real.train.labels[index].cpu()
        source = tuple(index.tolist())
        return cls(pixels, labels, "pixel", real.class_names, real.preprocess, 1, source, whole)

    def materialise(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """See `SyntheticSet`."""
        return self._train_images(self.images.to(device)), self._train_labels(device)

    def materialise_lazily(self, device: torch.device) -> tuple[LazyInputs, Tensor]:
        """See `SyntheticSet`."""
        labels = self._train_labels(device)
        return LazyInputs(len(labels), device, partial(self._pick, self.images.to(device))), labels

    def _train_images(self, images: Tensor) -> Tensor:
        """Decode stored images `(b, c, h, w)` to `(b * factor^2 * canvas^2, ...)` inputs, grouped by image."""
        return to_inputs(cut(images, self.canvas), self.space, self.preprocess, self.factor)

    def _train_labels(self, device: torch.device) -> Tensor:
        return self.labels.to(device).repeat_interleave(self.factor**2 * self.canvas**2, dim=0)

    def _pick(self, images: Tensor, index: Tensor) -> Tensor:
        cells = self.factor**2 * self.canvas**2
        decoded: Tensor = self._train_images(images[index // cells]).unflatten(0, (-1, cells))
        return decoded[torch.arange(len(index), device=index.device), index % cells]

    def tensors(self) -> dict[str, Tensor]:
        """See `SyntheticSet`."""
        return {"images": self.images, "labels": self.labels}

    def describe_tensors(self) -> str:
        """See `SyntheticSet`."""
        size = f"{self.config()['image_shape']}"
        if (side := self.canvas) > 1:
            size = f"{list(self.images.shape[1:])}, {side} x {side} training images of {size} side by side,"
        return f"""Images are {size} in space {self.space!r}.
Space "pixel" is uint8, "unit" is [0, 1], "input" is already preprocessed by `card.json`'s `preprocess`."""

    def config(self) -> dict[str, Any]:
        """See `SyntheticSet`."""
        return {
            "space": self.space,
            "factor": self.factor,
            "image_shape": [self.images.shape[1], *(side // self.canvas for side in self.images.shape[2:])],
            "source": None if self.source is None else list(self.source),
            **({"whole": True} if self.whole else {}),
            **({"lr": self.lr} if self.lr is not None else {}),
            **({"canvas": self.canvas} if self.canvas > 1 else {}),
        }

    def stored_samples(self) -> Tensor:
        """See `SyntheticSet`. A canvas counts canvas^2 images."""
        k = len(self.class_names)
        if self.labels.ndim == 2:
            return torch.full((k,), len(self.images) * self.canvas**2 / max(k, 1), dtype=torch.float64)
        return torch.bincount(self.labels, minlength=k).double() * self.canvas**2

    def describe_samples(self) -> str:
        """See `SyntheticSet`."""
        return f". With canvas={self.canvas}, a stored image counts as {self.canvas**2}" * (self.canvas > 1)

    def decoding(self) -> dict[str, int | str]:
        """See `SyntheticSet`."""
        return {"factor": self.factor, "canvas": self.canvas}

    @classmethod
    def restore(
        cls,
        config: dict[str, Any],
        tensors: dict[str, Tensor],
        class_names: tuple[str, ...],
        preprocess: Preprocess,
    ) -> Self:
        """See `SyntheticSet`."""
        require_tensors(tensors, "images", "labels")
        canvas = config.get("canvas", 1)
        if type(canvas) is not int or canvas < 1:
            raise ValueError(f"canvas must be an integer >= 1, got {canvas!r}")
        channels, *sides = tensors["images"].shape[1:]
        shape = [channels, *(side // canvas for side in sides)]
        check_shape(shape, config, preprocess)
        source = None if config["source"] is None else tuple(config["source"])
        space, factor = config["space"], config["factor"]
        whole = bool(config.get("whole", False))
        return cls(
            tensors["images"],
            tensors["labels"],
            space,
            class_names,
            preprocess,
            factor,
            source,
            whole,
            config.get("lr"),
            canvas,
        )

    def pictures(self) -> tuple[Tensor, Tensor]:
        """See `SyntheticSet`."""
        if self.space == "input":  # tile by tile, because a ZCA matrix is only for one image size
            images = tile(self.preprocess.inverse(cut(self.images.float(), self.canvas)), self.canvas)
        else:
            images = unit_pixels(self.images)
        return images.clamp(0, 1), self.labels if self.labels.ndim == 1 else self.labels.argmax(1)


def to_inputs(images: Tensor, space: Space, preprocess: Preprocess, factor: int = 1) -> Tensor:
    """Return the network inputs of stored images `(n, c, h, w)`: `factor^2` inputs of each image, see `decode`."""
    return images.float() if space == "input" else preprocess(decode(unit_pixels(images), factor))


def unit_pixels(images: Tensor) -> Tensor:
    """Return images of space "pixel" (uint8) as float32 in [0, 1]; images of space "unit" as float32 too."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()
