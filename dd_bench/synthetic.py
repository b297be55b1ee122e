"""The synthetic sets: what a method returns, what is stored, and what an evaluator trains on."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from torch import Tensor

from dd_bench.decode import cut, decode, tile
from dd_bench.inputs import LAID_OUT, Inputs, Made
from dd_bench.labels import check_labels
from dd_bench.preprocess import Preprocess
from dd_bench.real import RealSet, content_digest

Space = Literal["pixel", "unit", "input"]


class SyntheticSet(ABC):
    """A distilled set: tensors that are stored, and how to train on them."""

    kind: ClassVar[str]
    modality: ClassVar[str] = "image"
    task: ClassVar[str] = "image-classification"  # as Hugging Face calls it
    protocol: ClassVar[str] = "dsa-1000"  # to name beside it
    main_tensors: ClassVar[str] = "images, labels"
    class_names: tuple[str, ...]
    preprocess: Preprocess
    labels: Tensor
    lr: float | None
    """The learning rate that was distilled along with the set, if one was."""

    @abstractmethod
    def materialise(self, device: torch.device) -> tuple[Any, Tensor]:
        """Returns what a network trains on: its inputs (images `(n, c, h, w)` float32) and labels, on `device`."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Returns every tensor that is stored."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Returns what JSON can hold of the set; with `tensors()` it says everything."""

    @classmethod
    @abstractmethod
    def restore(
        cls,
        config: dict[str, Any],
        tensors: dict[str, Tensor],
        class_names: tuple[str, ...],
        preprocess: Preprocess,
    ) -> Self:
        """Rebuilds and checks a set; raises ValueError saying what is wrong."""

    @abstractmethod
    def pictures(self) -> tuple[Tensor, Tensor]:
        """Returns what a person may look at: pixels in [0, 1] `(n, c, h, w)` and the class of each `(n,)`."""

    @abstractmethod
    def explained(self) -> str:
        """Returns what the stored tensors are, for those who read them without this package."""

    @abstractmethod
    def check_ipc(self, ipc: int) -> None:
        """Raises ValueError unless the set holds `ipc` stored images of every class."""

    def controls(self) -> dict[str, SyntheticSet]:
        """Returns the sets that say what a part of this one is worth, by name: each is to be scored beside it."""
        return {}

    def told_sizes(self) -> dict[str, int]:
        """Returns the sizes, beside the bytes, by which papers call sets of this kind equal."""
        return {}

    def identity(self) -> str:
        """Returns the sha256 of all that is stored and of the preprocessing: the same on every device."""
        tensors = [t for _, t in sorted(self.tensors().items())]
        text = json.dumps([self.kind, self.config(), self.preprocess.digest], sort_keys=True)
        return content_digest(tensors, (*self.class_names, text))

    def stored_bytes(self) -> dict[str, int]:
        """Returns the bytes of every stored part, at its stored dtype: images, labels, decoders, all of it."""
        parts = {**self.tensors(), **{f"preprocess.{k}": v for k, v in self.preprocess.tensors().items()}}
        return {name: t.numel() * t.element_size() for name, t in sorted(parts.items())}


class SyntheticImages(SyntheticSet):
    """A set whose training samples are images."""

    @abstractmethod
    def materialise(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """See `SyntheticSet`."""

    @abstractmethod
    def made(self, device: torch.device) -> tuple[Made, Tensor]:
        """Returns what `materialise` does, the inputs to be made from the stored tensors as they are asked for."""

    def shown(self, device: torch.device) -> tuple[Inputs, Tensor]:
        """Returns what a network trains on, laid out unless that takes more than `LAID_OUT` bytes."""
        inputs, labels = self.made(device)
        one = inputs[torch.zeros(1, dtype=torch.int64, device=device)]
        if len(inputs) * one.numel() * one.element_size() > LAID_OUT:
            return inputs, labels
        return self.materialise(device)


@dataclass(frozen=True)
class ImageSet(SyntheticImages):
    """Images with labels.

    Attributes:
        images: `(n, c, h, w)`: uint8 in space "pixel", float32 in [0, 1] in "unit", network inputs in "input".
        labels: int64 `(n,)` or float32 `(n, k)`.
        space: what the values of `images` are.
        factor: multi-formation factor; each stored image is factor^2 training images (spaces pixel and unit).
        source: for a coreset, the indices of its images in the training split.
        whole: this is the whole training set, and its ipc only names a column.
        lr: a learning rate that was distilled along with the images.
        canvas: each stored image is canvas^2 training images, cut from it side by side (spaces unit and input).
    """

    kind: ClassVar[str] = "images"

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
        """Raises ValueError unless shapes, dtypes, ranges and labels agree."""
        if self.space not in get_args(Space):
            raise ValueError(f"space {self.space!r} is unknown; it is one of {', '.join(get_args(Space))}")
        if self.images.ndim != 4 or len(self.images) == 0:
            raise ValueError(f"images are (n, c, h, w) with n >= 1; got {tuple(self.images.shape)}")
        wanted = torch.uint8 if self.space == "pixel" else torch.float32
        if self.images.dtype != wanted:
            raise ValueError(f"space {self.space!r} stores {wanted} images; got {self.images.dtype}")
        if self.space != "pixel" and not bool(torch.isfinite(self.images).all()):
            raise ValueError("some pixels are not finite")
        if self.space == "unit":
            low, high = float(self.images.min()), float(self.images.max())
            if low < -1e-6 or high > 1 + 1e-6:
                raise ValueError(f"space 'unit' means pixels in [0, 1]; these span [{low:.4g}, {high:.4g}]")
        if type(self.factor) is not int or self.factor < 1 or (self.factor > 1 and self.space == "input"):
            raise ValueError(
                f"factor={self.factor!r} in space {self.space!r}: decoding needs pixels and a factor >= 1"
            )
        if self.lr is not None and not (type(self.lr) is float and 0 < self.lr < float("inf")):
            raise ValueError(f"lr={self.lr!r}: a learning rate is a positive number")
        canvas, sides = self.canvas, self.images.shape[2:]
        if (
            type(canvas) is not int
            or canvas < 1
            or (canvas > 1 and (self.factor > 1 or self.space == "pixel"))
        ):
            raise ValueError(f"canvas={canvas!r} with factor={self.factor} in space {self.space!r}")
        if any(side % canvas for side in sides):
            raise ValueError(f"canvas={canvas} does not divide images of {tuple(sides)}")
        check_labels(self.labels, len(self.images), len(self.class_names))

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
        """Builds the set that a method distilled from `real`; tensors move to the CPU."""
        images, labels = images.detach().cpu().contiguous(), labels.detach().cpu().contiguous()
        names, preprocess = real.class_names, real.preprocess
        return cls(images, labels, space, names, preprocess, factor, lr=lr, canvas=canvas)

    @classmethod
    def coreset(cls, real: RealSet, index: Tensor, whole: bool = False) -> ImageSet:
        """Builds the set of the training images `index (n,)`, stored losslessly as they are, 8 bits a value."""
        pixels, labels = real.train.pixels(index).cpu(), real.train.labels[index].cpu()
        source = tuple(index.tolist())
        return cls(pixels, labels, "pixel", real.class_names, real.preprocess, 1, source, whole)

    def materialise(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """See `SyntheticSet`."""
        return self._train_images(self.images.to(device)), self._train_labels(device)

    def made(self, device: torch.device) -> tuple[Made, Tensor]:
        """See `SyntheticSet`."""
        labels = self._train_labels(device)
        return Made(len(labels), device, partial(self._pick, self.images.to(device))), labels

    def _train_images(self, images: Tensor) -> Tensor:
        """Returns the inputs that stored images `(b, c, h, w)` are: factor^2 canvas^2 of each, side by side."""
        images = cut(images, self.canvas)
        return images if self.space == "input" else self.preprocess(decode(self._unit(images), self.factor))

    def _train_labels(self, device: torch.device) -> Tensor:
        return self.labels.to(device).repeat_interleave(self.factor**2 * self.canvas**2, dim=0)

    def _pick(self, images: Tensor, index: Tensor) -> Tensor:
        cells = self.factor**2 * self.canvas**2
        of_each: Tensor = self._train_images(images[index // cells]).unflatten(0, (-1, cells))
        return of_each[torch.arange(len(index), device=index.device), index % cells]

    def _unit(self, images: Tensor) -> Tensor:
        return images.float() / 255 if self.space == "pixel" else images

    def tensors(self) -> dict[str, Tensor]:
        """See `SyntheticSet`."""
        return {"images": self.images, "labels": self.labels}

    def explained(self) -> str:
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

    def check_ipc(self, ipc: int) -> None:
        """See `SyntheticSet`; soft labels name no class, so only their number is checked."""
        if self.whole:
            return
        k = len(self.class_names)
        if self.labels.ndim == 2 and len(self.images) != ipc * k:
            raise ValueError(
                f"ipc={ipc} of {k} classes is {ipc * k} images, the set holds {len(self.images)}"
            )
        if self.labels.ndim == 1:
            counts = torch.bincount(self.labels, minlength=k)
            wrong = (counts != ipc).nonzero().flatten().tolist()
            if wrong:
                c = wrong[0]
                raise ValueError(f"ipc={ipc}, but class {self.class_names[c]!r} has {int(counts[c])} images")

    @classmethod
    def restore(
        cls,
        config: dict[str, Any],
        tensors: dict[str, Tensor],
        class_names: tuple[str, ...],
        preprocess: Preprocess,
    ) -> Self:
        """See `SyntheticSet`."""
        require(tensors, "images", "labels")
        canvas = config.get("canvas", 1)
        if type(canvas) is not int or canvas < 1:
            raise ValueError(f"canvas={canvas!r}: wanted a whole number >= 1")
        channels, *sides = tensors["images"].shape[1:]
        shape = [channels, *(side // canvas for side in sides)]
        _check_shape(shape, config, preprocess)
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
        if self.space == "input":  # tile by tile: a whitening is of one size
            images = tile(self.preprocess.inverse(cut(self.images, self.canvas)), self.canvas)
        else:
            images = self._unit(self.images)
        return images.clamp(0, 1), self.labels if self.labels.ndim == 1 else self.labels.argmax(1)


@dataclass(frozen=True)
class CompensatedSet(SyntheticImages):
    """Natural images, and compensators that are added to them: INFER's sets (Zhang et al., ICLR 2025).

    A natural set is one image of each class; each of its compensators makes of it another image of every class. K
    natural sets of C classes with M compensators each store K C + K M images and train on (M + 1) K C.

    Attributes:
        images: the natural images, uint8 `(K C, c, h, w)`, set by set.
        labels: int64 `(K C,)`.
        compensators: added to network inputs, float16 `(K, M, c, h, w)`.
        source: indices of the natural images in the training split.
    """

    kind: ClassVar[str] = "compensated"
    main_tensors = "images, labels, compensators"

    images: Tensor
    labels: Tensor
    compensators: Tensor
    class_names: tuple[str, ...]
    preprocess: Preprocess
    source: tuple[int, ...]
    lr: float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError unless shapes, dtypes, ranges and labels agree."""
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ValueError(
                f"natural images are uint8 (n, c, h, w); got {self.images.dtype} {tuple(self.images.shape)}"
            )
        u, k = self.compensators, len(self.class_names)
        if u.dtype != torch.float16 or u.ndim != 5 or u.shape[2:] != self.images.shape[1:]:
            raise ValueError(
                f"compensators are float16 (K, M, c, h, w) of images {tuple(self.images.shape[1:])}; "
                f"got {u.dtype} {tuple(u.shape)}"
            )
        if len(self.images) != len(u) * k or not len(u):
            raise ValueError(
                f"{len(u)} natural sets of {k} classes are {len(u) * k} images; there are {len(self.images)}"
            )
        if not bool(torch.isfinite(u).all()):
            raise ValueError("some values of the compensators are not finite")
        check_labels(self.labels, len(self.images), k)
        for number, labels in enumerate(self.labels.view(len(u), k)):
            if len(labels.unique()) != k:
                raise ValueError(f"natural set {number} has not one image of each of the {k} classes")
        if len(self.source) != len(self.images):
            raise ValueError(f"{len(self.images)} natural images, but {len(self.source)} sources")

    @classmethod
    def of(cls, real: RealSet, index: Tensor, compensators: Tensor) -> CompensatedSet:
        """Builds the set of the training images `index (K C,)` and `compensators (K, M, c, h, w)`."""
        pixels, labels = real.train.pixels(index).cpu(), real.train.labels[index].cpu()
        half = compensators.detach().cpu().half().contiguous()
        source = tuple(index.tolist())
        return cls(pixels, labels, half, real.class_names, real.preprocess, source)

    def materialise(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """See `SyntheticSet`: the natural images, then those of each compensator, clamped to what pixels can be."""
        inputs, labels = self.made(device)
        return inputs[torch.arange(len(inputs), device=device)], labels

    def made(self, device: torch.device) -> tuple[Made, Tensor]:
        """See `SyntheticSet`."""
        m = self.compensators.shape[1]
        labels = self.labels.to(device).repeat(m + 1)
        pick = partial(self._pick, self.images.to(device), self.compensators.to(device))
        return Made(len(labels), device, pick), labels

    def _pick(self, images: Tensor, compensators: Tensor, index: Tensor) -> Tensor:
        added, which = index // len(images) - 1, index % len(images)  # -1: none is added
        x = self.preprocess(images[which].float() / 255)
        low, high = (self.preprocess(torch.full_like(x[:1], v)) for v in (0.0, 1.0))
        u = compensators[which // len(self.class_names), added.clamp_min(0)].float()
        made = torch.minimum(torch.maximum(x + u, low), high)
        return torch.where((added < 0).view(-1, 1, 1, 1), x, made)

    def controls(self) -> dict[str, SyntheticSet]:
        """See `SyntheticSet`: the natural images alone."""
        natural = ImageSet(self.images, self.labels, "pixel", self.class_names, self.preprocess)
        return {"natural": natural}

    def tensors(self) -> dict[str, Tensor]:
        """See `SyntheticSet`."""
        return {"images": self.images, "labels": self.labels, "compensators": self.compensators}

    def explained(self) -> str:
        """See `SyntheticSet`."""
        k, m = self.compensators.shape[:2]
        return f"""Images are {list(self.images.shape[1:])}, uint8: {k} sets of one image a class. `compensators[i, j]`
is added to the images of set i after `card.json`'s `preprocess`, and the sum clamped to what black and white become:
{m} more images of each."""

    def config(self) -> dict[str, Any]:
        """See `SyntheticSet`."""
        return {"image_shape": list(self.images.shape[1:]), "source": list(self.source)}

    def check_ipc(self, ipc: int) -> None:
        """See `SyntheticSet`; a compensator costs as much as an image."""
        k, m = self.compensators.shape[:2]
        c = len(self.class_names)
        if k * (c + m) > ipc * c:
            raise ValueError(
                f"ipc={ipc} of {c} classes is {ipc * c} images; {k} natural sets with {m} compensators each are "
                f"{k * (c + m)}"
            )

    @classmethod
    def restore(
        cls,
        config: dict[str, Any],
        tensors: dict[str, Tensor],
        class_names: tuple[str, ...],
        preprocess: Preprocess,
    ) -> Self:
        """See `SyntheticSet`."""
        require(tensors, "images", "labels", "compensators")
        shape = list(tensors["images"].shape[1:])
        _check_shape(shape, config, preprocess)
        return cls(
            tensors["images"],
            tensors["labels"],
            tensors["compensators"],
            class_names,
            preprocess,
            tuple(config["source"]),
        )

    def pictures(self) -> tuple[Tensor, Tensor]:
        """See `SyntheticSet`; each natural image is followed by what its compensators make of it."""
        m = self.compensators.shape[1]
        inputs, labels = self.materialise(torch.device("cpu"))
        pixels = self.preprocess.inverse(inputs).clamp(0, 1).unflatten(0, (m + 1, -1))
        return pixels.transpose(0, 1).flatten(0, 1), labels[: len(self.images)].repeat_interleave(m + 1)


def require(tensors: dict[str, Tensor], *names: str) -> None:
    """Raises ValueError unless the file holds what a set is made of."""
    if missing := sorted(set(names) - set(tensors)):
        raise ValueError(f"tensor {missing[0]!r} is missing; the file holds {sorted(tensors)}")


def _check_shape(shape: list[int], config: dict[str, Any], preprocess: Preprocess) -> None:
    """Raises ValueError unless images `(c, h, w)` are what the card says, and what its preprocessing takes."""
    if shape != config["image_shape"]:
        raise ValueError(f"images are {shape}, the card says {config['image_shape']}")
    if not preprocess.takes(shape):
        raise ValueError(f"its preprocessing {preprocess.config()} does not take images {shape}")
