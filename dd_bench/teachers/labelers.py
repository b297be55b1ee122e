"""Labelers give the target of a view: its class, a stored soft label, or the logits of a teacher.

There are four kinds, so that the effect of the *data* can be told from the effect of the *labels*:

- `hard`: the classes. Costs nothing.
- `static`: the teachers' logits of each unaugmented image. One soft label an image.
- `replay`: their logits of each view of each epoch, stored (FKD, Shen and Xing, ECCV 2022). Same seed, same views.
- `online`: their logits of each view, computed while the network trains. Nothing is stored; the teachers are needed.
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
        label_bytes: bytes of labels that a user stores in addition to the images.
        forwards: teacher forwards, in images, for the training of one network.
    """

    label_bytes: int = 0
    forwards: int = 0

    def viewed_epoch(self, epoch: int) -> int:
        """Returns the epoch whose views are used in epoch `epoch` of a training."""
        return epoch

    @abstractmethod
    def target(self, view: View) -> Target:
        """Returns the target of the network's logits for the view."""


class Hard(Labeler):
    """The classes; both classes of a mixture."""

    def __init__(self, labels: Tensor):
        """Takes the classes, int64 `(n,)`."""
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
    """One soft label an image, of the unaugmented image; a mixture interpolates two of them (INFER)."""

    def __init__(self, recipe: LabelRecipe, labels: Tensor, logits: Tensor):
        """Takes the classes `(n,)` and the teachers' logits, float16 `(n, k)`."""
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
        return self._soft_target(view, z)


class Replay(_Soft):
    """The teachers' logits of the same views, read from the store."""

    def __init__(self, recipe: LabelRecipe, labels: Tensor, store: LabelStore):
        """Takes the classes `(n,)` and the stored labels."""
        super().__init__(recipe, labels)
        self.store, self.label_bytes = store, store.label_bytes

    def viewed_epoch(self, epoch: int) -> int:
        """See `Labeler`; with a pool, one of the stored epochs."""
        return self.store.stored_epoch(epoch)

    def target(self, view: View) -> SoftTarget:
        """See `Labeler`."""
        return self._soft_target(view, self.store.logits(view.epoch, view.index))


class OnlineTeacher(_Soft):
    """The teachers' logits of the view, computed when the network trains on it."""

    def __init__(self, recipe: LabelRecipe, labels: Tensor, teachers: Sequence[Teacher], forwards: int):
        """Takes the classes `(n,)`, the teachers, and the number of their forwards for one network."""
        super().__init__(recipe, labels)
        self.teachers, self.forwards = list(teachers), forwards

    def target(self, view: View) -> SoftTarget:
        """See `Labeler`."""
        return self._soft_target(view, ensemble(self.teachers, view.x, self.recipe.teacher_mode))


def labelled_batches(
    images: Inputs, views: Views, labeler: Labeler, epoch: int
) -> Iterator[tuple[Tensor, Tensor, Target]]:
    """Yields the batches of an epoch: unaugmented images, views, and their target."""
    for view in views.epoch(images, labeler.viewed_epoch(epoch)):
        yield images[view.index], view.x, labeler.target(view)
