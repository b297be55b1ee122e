"""The contract of a synthetic set: what is stored, and what a network trains on."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from dd_bench.data.dataset import content_digest
from dd_bench.data.inputs import MATERIALISE_LIMIT, Inputs, LazyInputs
from dd_bench.data.preprocess import Preprocess

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
        """Return what a network trains on: its inputs (images `(n, c, h, w)` float32) and labels, on `device`."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor that is stored."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return what JSON can hold of the set; with `tensors()` it says everything."""

    @classmethod
    @abstractmethod
    def restore(
        cls,
        config: dict[str, Any],
        tensors: dict[str, Tensor],
        class_names: tuple[str, ...],
        preprocess: Preprocess,
    ) -> Self:
        """Rebuild and checks a set; raises ValueError saying what is wrong."""

    @abstractmethod
    def pictures(self) -> tuple[Tensor, Tensor]:
        """Return what a person may look at: pixels in [0, 1] `(n, c, h, w)` and the class of each `(n,)`."""

    @abstractmethod
    def explained(self) -> str:
        """Return what the stored tensors are, for those who read them without this package."""

    @abstractmethod
    def check_ipc(self, ipc: int) -> None:
        """Raise ValueError unless the set holds `ipc` stored images of every class."""

    def controls(self) -> dict[str, SyntheticSet]:
        """Return the sets that say what a part of this one is worth, by name: each is to be scored beside it."""
        return {}

    def size_metrics(self) -> dict[str, int]:
        """Return the sizes, beside the bytes, by which papers call sets of this kind equal."""
        return {}

    def identity(self) -> str:
        """Return the sha256 of all that is stored and of the preprocessing: the same on every device."""
        tensors = [t for _, t in sorted(self.tensors().items())]
        text = json.dumps([self.kind, self.config(), self.preprocess.digest], sort_keys=True)
        return content_digest(tensors, (*self.class_names, text))

    def stored_bytes(self) -> dict[str, int]:
        """Return the bytes of every stored part, at its stored dtype: images, labels, decoders, all of it."""
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
        """Return inputs and labels; inputs of more than `MATERIALISE_LIMIT` bytes are decoded lazily."""
        inputs, labels = self.materialise_lazily(device)
        one = inputs[torch.zeros(1, dtype=torch.int64, device=device)]
        if len(inputs) * one.numel() * one.element_size() > MATERIALISE_LIMIT:
            return inputs, labels
        return self.materialise(device)


def require(tensors: dict[str, Tensor], *names: str) -> None:
    """Raise ValueError unless the file holds what a set is made of."""
    if missing := sorted(set(names) - set(tensors)):
        raise ValueError(f"tensor {missing[0]!r} is missing; the file holds {sorted(tensors)}")


def check_shape(shape: list[int], config: dict[str, Any], preprocess: Preprocess) -> None:
    """Raise ValueError unless images `(c, h, w)` are what the card says, and what its preprocessing takes."""
    if shape != config["image_shape"]:
        raise ValueError(f"images are {shape}, the card says {config['image_shape']}")
    if not preprocess.accepts(shape):
        raise ValueError(f"its preprocessing {preprocess.config()} does not take images {shape}")
