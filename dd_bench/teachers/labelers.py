"""Labelers give the target of a view: its class, a stored soft label, or the answer of a teacher.

Four answers to one question, so that a reader can see what the *data* give and what the *labels* give:

- `hard`: the classes. Costs nothing.
- `static`: what the teachers say of each image, unaugmented, once. One soft label an image.
- `replay`: what they say of each view of each epoch, stored (FKD, Shen and Xing, ECCV 2022). Same seed, same views.
- `online`: what they say of each view while the network trains. Nothing stored, but the teachers must come along.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dd_bench.data.inputs import Inputs
from dd_bench.teachers.label_store import LabelStore
from dd_bench.teachers.teachers import Teacher
from dd_bench.training.losses import LabelRecipe, SoftTarget, Target
from dd_bench.training.views import View, Views


@torch.no_grad()
def ensemble(teachers: Sequence[Teacher], x: Tensor, mode: str) -> Tensor:
    """Returns the mean of the teachers' logits of inputs `(b, c, h, w)`, float32 `(b, k)`."""
    return torch.stack([teacher.logits(x, mode) for teacher in teachers]).mean(0)


class Labeler(ABC):
    """Gives the target of a view.

    Attributes:
        label_bytes: what a user has to store beside the images, in bytes.
        forwards: teacher forwards, in images, that training one network costs.
    """

    label_bytes: int = 0
    forwards: int = 0

    def viewed_epoch(self, epoch: int) -> int:
        """Returns the epoch whose views are shown in a training's epoch number `epoch`."""
        return epoch

    @abstractmethod
    def target(self, view: View) -> Target:
        """Returns what the network's answer to the view is compared with."""


class Hard(Labeler):
    """The classes, in a mixture both."""

    def __init__(self, labels: Tensor):
        """Takes the classes, int64 `(n,)`."""
        self.labels = labels

    def target(self, view: View) -> Target:
        """See `Labeler`."""
        return view.target(self.labels[view.index])


class _Soft(Labeler):
    def __init__(self, recipe: LabelRecipe, labels: Tensor):
        self.recipe, self.labels = recipe, labels

    def _taught(self, view: View, logits: Tensor) -> SoftTarget:
        mixture = view.mixture
        partner, keep = (None, None) if mixture is None else (mixture.partner, mixture.keep)
        return SoftTarget(logits, self.labels[view.index], partner, keep, self.recipe)


class StaticSoft(_Soft):
    """One soft label an image, of the image as it is; a mixture interpolates two of them (INFER)."""

    def __init__(self, recipe: LabelRecipe, labels: Tensor, logits: Tensor):
        """Takes the classes `(n,)` and what the teachers say, float16 logits `(n, k)`."""
        super().__init__(recipe, labels)
        self.logits = logits
        self.label_bytes = logits.numel() * logits.element_size()

    def target(self, view: View) -> SoftTarget:
        """See `Labeler`."""
        z = self.logits[view.index].float()
        if view.mixture is not None:
            if self.recipe.mix_space == "logits":
                z = view.mixture.labels(z)
            else:  # at the temperature of the loss, whose softmax then gives back the mixed probabilities
                t = self.recipe.temperature
                mixed = view.mixture.labels((z / t).softmax(1))
                z = t * mixed.clamp_min(torch.finfo(mixed.dtype).tiny).log()
        return self._taught(view, z)


class Replay(_Soft):
    """What the teachers said of just these views, read back."""

    def __init__(self, recipe: LabelRecipe, labels: Tensor, store: LabelStore):
        """Takes the classes `(n,)` and the stored labels."""
        super().__init__(recipe, labels)
        self.store, self.label_bytes = store, store.label_bytes

    def viewed_epoch(self, epoch: int) -> int:
        """See `Labeler`; of a pool, one of the stored epochs."""
        return self.store.stored_epoch(epoch)

    def target(self, view: View) -> SoftTarget:
        """See `Labeler`."""
        return self._taught(view, self.store.logits(view.epoch, view.index))


class OnlineTeacher(_Soft):
    """What the teachers say of the view now."""

    def __init__(self, recipe: LabelRecipe, labels: Tensor, teachers: Sequence[Teacher], forwards: int):
        """Takes the classes `(n,)`, the teachers, and how many forwards they will do for one network."""
        super().__init__(recipe, labels)
        self.teachers, self.forwards = list(teachers), forwards

    def target(self, view: View) -> SoftTarget:
        """See `Labeler`."""
        return self._taught(view, ensemble(self.teachers, view.x, self.recipe.teacher_mode))


def labelled_batches(
    images: Inputs, views: Views, labeler: Labeler, epoch: int
) -> Iterator[tuple[Tensor, Tensor, Target]]:
    """Yields the batches of an epoch: images as they are, as they are shown, and the target."""
    for view in views.epoch(images, labeler.viewed_epoch(epoch)):
        yield images[view.index], view.x, labeler.target(view)
