"""Labelers return the target of a view: its class, a stored soft label, or the logits of teachers.

There are four kinds. Comparing them separates the effect of the *images* from the effect of the *labels*.

- `hard`: the classes; they need no teacher.
- `static`: the teachers' logits of each unaugmented image, one soft label per image.
- `replay`: the teachers' logits of each view of each epoch, stored (FKD, Shen and Xing, ECCV 2022). The views are
  reproduced from their seed.
- `online`: the teachers' logits of each view, computed during training. Nothing is stored, but the teachers are needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dd_bench.data.inputs import Inputs
from dd_bench.teachers.label_store import LabelStore
from dd_bench.teachers.teachers import Teacher
from dd_bench.training.batches import ViewBatches
from dd_bench.training.losses import LabelRecipe, SoftTarget, Target
from dd_bench.training.views import View, ViewDraw, Views


@torch.no_grad()
def ensemble(teachers: Sequence[Teacher], x: Tensor, mode: str) -> Tensor:
    """Return the mean of the teachers' logits for inputs `(b, c, h, w)`, float32 `(b, k)`."""
    return torch.stack([teacher.logits(x, mode) for teacher in teachers]).mean(0)


class Labeler(ABC):
    """Abstract class that computes the targets of augmented images (views).

    Attributes:
        label_bytes: bytes of labels that a user stores in addition to the images.
        forwards: number of images that the teachers process while one network is trained. With M teachers, each view
            counts M times.
    """

    label_bytes: int = 0
    forwards: int = 0

    def viewed_epoch(self, epoch: int) -> int:
        """Return the epoch whose views are used in the training epoch `epoch`."""
        return epoch

    def load(self, epoch: int) -> None:  # noqa: B027  most labelers store nothing
        """Read the stored labels of an epoch, if there are any. `target` uses those of the last call."""

    @abstractmethod
    def target(self, view: View) -> Target:
        """Return the target of a network's logits for a view."""


class Hard(Labeler):
    """Hard labels: the class of an image, or both classes of two mixed images."""

    def __init__(self, labels: Tensor):
        """Use the classes `labels`, int64 `(n,)`."""
        self.labels = labels

    def target(self, view: View) -> Target:
        """See `Labeler`."""
        return view.target(self.labels[view.index])


class _Soft(Labeler):
    def __init__(self, recipe: LabelRecipe, labels: Tensor):
        self.recipe, self.labels = recipe, labels

    def _soft_target(self, view: View, logits: Tensor) -> SoftTarget:
        mixture = view.mixture
        partner, keep = (None, None) if mixture is None else (mixture.partner, mixture.keep)
        return SoftTarget(logits, self.labels[view.index], partner, keep, self.recipe)


class StaticSoft(_Soft):
    """One soft label per unaugmented image. The label of two mixed images interpolates their soft labels (INFER)."""

    def __init__(self, recipe: LabelRecipe, labels: Tensor, logits: Tensor):
        """Use the classes `(n,)` and the teachers' logits, float16 `(n, k)`."""
        super().__init__(recipe, labels)
        self.logits = logits
        self.label_bytes = logits.numel() * logits.element_size()

    def target(self, view: View) -> SoftTarget:
        """See `Labeler`."""
        z = self.logits[view.index].float()
        if view.mixture is not None:
            if self.recipe.mix_space == "logits":
                z = view.mixture.labels(z)
            else:  # mix the probabilities at temperature t; the softmax of the loss then returns the mixture
                t = self.recipe.temperature
                mixed = view.mixture.labels((z / t).softmax(1))
                z = t * mixed.clamp_min(torch.finfo(mixed.dtype).tiny).log()
        return self._soft_target(view, z)


class Replay(_Soft):
    """The teachers' logits of each view, read from stored labels."""

    def __init__(self, recipe: LabelRecipe, labels: Tensor, store: LabelStore):
        """Use the classes `(n,)` and the stored labels."""
        super().__init__(recipe, labels)
        self.store, self.label_bytes = store, store.label_bytes

    def viewed_epoch(self, epoch: int) -> int:
        """See `Labeler`. After the last stored epoch, returns a random stored epoch."""
        return self.store.stored_epoch(epoch)

    def load(self, epoch: int) -> None:
        """See `Labeler`."""
        self.store.load(epoch)

    def target(self, view: View) -> SoftTarget:
        """See `Labeler`. The memory of the labels is fixed, so a CUDA graph of a step reads those of each epoch."""
        return self._soft_target(view, self.store.loaded[view.index].float())


class OnlineTeacher(_Soft):
    """The teachers' logits of a view, computed when the network trains on it."""

    def __init__(self, recipe: LabelRecipe, labels: Tensor, teachers: Sequence[Teacher], forwards: int):
        """Use the classes `(n,)` and the teachers; for `forwards`, see `Labeler`."""
        super().__init__(recipe, labels)
        self.teachers, self.forwards = list(teachers), forwards

    def target(self, view: View) -> SoftTarget:
        """See `Labeler`."""
        # in train mode, teachers normalise with the statistics of a batch, so each network needs its own forward pass
        parts = view.x.chunk(view.groups if self.recipe.teacher_mode == "train" else 1)
        logits = [ensemble(self.teachers, x, self.recipe.teacher_mode) for x in parts]
        return self._soft_target(view, logits[0] if len(logits) == 1 else torch.cat(logits))


class LabelledViews(ViewBatches):
    """The views of one or several networks, and their targets from a labeler."""

    def __init__(self, images: Inputs, views: Sequence[Views], labeler: Labeler):
        """Take the images `(n, c, h, w)`, the views of each network, and the labeler."""
        super().__init__(lambda index: (images[index], index), views, lambda view, _: labeler.target(view))
        self._labeler = labeler

    def draw(self, epoch: int) -> Iterator[ViewDraw]:
        """See `Batches`."""
        epoch = self._labeler.viewed_epoch(epoch)
        for draw in super().draw(epoch):
            self._labeler.load(epoch)  # the labels of a draw are those that are loaded until the next draw
            yield draw
