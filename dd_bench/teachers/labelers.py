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
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from dd_bench.data.inputs import Inputs
from dd_bench.runtime.transfer import to_device
from dd_bench.teachers.label_codec import LabelCodec
from dd_bench.teachers.label_store import LabelStore
from dd_bench.teachers.teachers import Teacher
from dd_bench.training.batches import ViewBatches
from dd_bench.training.label_recipe import LabelRecipe
from dd_bench.training.label_schedule import LabelSchedule
from dd_bench.training.losses import SmoothedTarget, SoftTarget, Target, Temperatures
from dd_bench.training.views import TemperatureDraw, View, ViewDraw, Views


@torch.no_grad()
def ensemble(
    teachers: Sequence[Teacher], x: Tensor, mode: str, weights: Sequence[float] | None = None
) -> Tensor:
    """Return the mean of the teachers' logits for inputs `(b, c, h, w)`, float32 `(b, k)`.

    With `weights`, one of each teacher, it is the weighted mean.
    """
    logits = [teacher.logits(x, mode) for teacher in teachers]
    if weights is None:
        return torch.stack(logits).mean(0)
    total = sum(weights)
    return torch.stack([z * (w / total) for z, w in zip(logits, weights, strict=True)]).sum(0)


class Draws(Protocol):
    """The random numbers of the views of one or several networks.

    Attributes:
        per_epoch: number of batches of an epoch.
    """

    @property
    def per_epoch(self) -> int:
        """See above."""

    def epoch(self, epoch: int) -> Iterator[ViewDraw]:
        """Yield the draws of the batches of an epoch."""

    def batch(self, epoch: int, number: int) -> ViewDraw:
        """Return the draw of one batch of an epoch."""


class Labeler(ABC):
    """Abstract class that computes the targets of augmented images (views).

    Attributes:
        label_bytes: bytes of labels that a user stores in addition to the images.
        forwards: number of images that the teachers process while one network is trained. With M teachers, each view
            counts M times.
        teacher_bytes: bytes of the weights of teachers that are needed during training.
        calibrates: whether networks have a temperature of their own that is calibrated after each epoch.
    """

    label_bytes: int = 0
    forwards: int = 0
    teacher_bytes: int = 0
    calibrates: bool = False

    def draws(self, epoch: int, views: Draws) -> Iterator[ViewDraw]:
        """Yield the draws of the batches of a training epoch. Stored labels are loaded before each of them."""
        return views.epoch(epoch)

    @abstractmethod
    def target(self, view: View, student: Tensor | None = None) -> Target:
        """Return the target of a network's logits for a view.

        Args:
            view: the view, or those of g networks.
            student: calibrated temperature of each network `(g,)`, see `Temperatures`.
        """


class Hard(Labeler):
    """Hard labels: the class of an image, or both classes of two mixed images."""

    def __init__(self, labels: Tensor, smoothing: float = 0.0):
        """Use the classes `labels`, int64 `(n,)`, with label smoothing."""
        self.labels, self.smoothing = labels, smoothing

    def target(self, view: View, student: Tensor | None = None) -> Target:
        """See `Labeler`."""
        target = view.target(self.labels[view.index])
        if not self.smoothing:
            return target
        y, partner, keep = target if isinstance(target, tuple) else (target, None, None)
        return SmoothedTarget(y, partner, keep, self.smoothing)


class _Soft(Labeler):
    """Soft labels. If they change during the training, `schedule` defines the labels of each epoch."""

    def __init__(self, recipe: LabelRecipe, labels: Tensor, schedule: LabelSchedule | None = None):
        self.recipe, self.labels = recipe, labels
        self.schedule = None if schedule is None or schedule.is_constant else schedule
        self._classes = Hard(labels, recipe.hard_smoothing)
        self.calibrates = recipe.calibrates

    def draws(self, epoch: int, views: Draws) -> Iterator[ViewDraw]:
        """See `Labeler`."""
        if self.schedule is None:
            yield from self._soft_draws(epoch, epoch, views)
            return
        if (soft := self.schedule.soft_epoch(epoch)) is None:
            yield from views.epoch(self._unlabelled_epoch(epoch))
            return
        teacher = torch.tensor(self.schedule.temperature(epoch))
        for step, draw in enumerate(self._soft_draws(epoch, soft, views), 1):
            is_last = self.calibrates and step == views.per_epoch
            yield replace(draw, temperature=TemperatureDraw(teacher, torch.ones(1) if is_last else None))

    def _soft_draws(self, epoch: int, soft: int, views: Draws) -> Iterator[ViewDraw]:
        """Yield the draws of `epoch`, before which `soft` epochs had soft labels."""
        return views.epoch(epoch)

    def _unlabelled_epoch(self, epoch: int) -> int:
        """Return the epoch whose views a training epoch with class labels uses."""
        return epoch

    def target(self, view: View, student: Tensor | None = None) -> Target:
        """See `Labeler`."""
        if self.schedule is None:
            return self._soft_target(view, self._logits(view), None)
        if view.temperature is None:
            return self._classes.target(view)
        now = Temperatures(view.temperature.teacher, student, view.temperature.calibrate is not None)
        return self._soft_target(view, self._logits(view), now)

    def _soft_target(self, view: View, logits: Tensor, temperatures: Temperatures | None) -> SoftTarget:
        mixture = view.mixture
        partner, keep = (None, None) if mixture is None else (mixture.partner, mixture.keep)
        return SoftTarget(logits, self.labels[view.index], partner, keep, self.recipe, temperatures)

    @abstractmethod
    def _logits(self, view: View) -> Tensor:
        """Return the teachers' logits of a view, float32 `(b, k)`."""


class StaticSoft(_Soft):
    """One soft label per unaugmented image. The label of two mixed images interpolates their soft labels (INFER)."""

    def __init__(
        self,
        recipe: LabelRecipe,
        labels: Tensor,
        logits: Tensor,
        schedule: LabelSchedule | None = None,
        codec: LabelCodec | None = None,
    ):
        """Use the classes `(n,)` and the teachers' logits `(n, k)`, stored by `codec` (by default as float16)."""
        super().__init__(recipe, labels, schedule)
        codec = codec or LabelCodec(logits.shape[1])
        self.logits = to_device(codec.decode(codec.encode(logits)), logits.device)
        self.label_bytes = len(logits) * codec.view_bytes

    def _logits(self, view: View) -> Tensor:
        z = self.logits[view.index].float()
        if view.mixture is None:
            return z
        if self.recipe.mix_space == "logits":
            return view.mixture.labels(z)
        # mix the probabilities at temperature t; the softmax of the loss then returns the mixture
        t = self.recipe.temperature if view.temperature is None else view.temperature.teacher
        mixed = view.mixture.labels((z / t).softmax(1))
        return t * mixed.clamp_min(torch.finfo(mixed.dtype).tiny).log()


class Replay(_Soft):
    """The teachers' logits of each view, read from stored labels."""

    def __init__(
        self, recipe: LabelRecipe, labels: Tensor, store: LabelStore, schedule: LabelSchedule | None = None
    ):
        """Use the classes `(n,)` and the stored labels."""
        super().__init__(recipe, labels, schedule)
        self.store, self.label_bytes = store, store.label_bytes

    def _soft_draws(self, epoch: int, soft: int, views: Draws) -> Iterator[ViewDraw]:
        """See `_Soft`. The labels of a draw are those that are loaded until the next draw."""
        header = self.store.header
        if header.batches is not None:
            for step in range(soft * header.batches_per_epoch, (soft + 1) * header.batches_per_epoch):
                stored, number = self.store.stored_batch(step)
                draw = views.batch(stored, number)
                self.store.load_batch(stored, number, draw.index[: len(draw.index) // draw.groups])
                yield draw
            return
        stored = self.store.stored_epoch(soft)  # after the last stored epoch, a random one
        for draw in views.epoch(stored):
            self.store.load(stored)
            yield draw

    def _unlabelled_epoch(self, epoch: int) -> int:
        """See `_Soft`. The views differ from those with stored labels."""
        return self.store.header.epochs + epoch

    def _logits(self, view: View) -> Tensor:
        # the memory of the labels is fixed, so a CUDA graph of a step reads those of each epoch
        return self.store.loaded[view.index].float()


class OnlineTeacher(_Soft):
    """The teachers' logits of a view, computed when the network trains on it."""

    def __init__(
        self,
        recipe: LabelRecipe,
        labels: Tensor,
        teachers: Sequence[Teacher],
        forwards: int,
        schedule: LabelSchedule | None = None,
    ):
        """Use the classes `(n,)` and the teachers; for `forwards`, see `Labeler`."""
        super().__init__(recipe, labels, schedule)
        self.teachers, self.forwards = list(teachers), forwards
        self.teacher_bytes = sum(t.weight_bytes for t in teachers)

    def _logits(self, view: View) -> Tensor:
        # in train mode, teachers normalise with the statistics of a batch, so each network needs its own forward pass
        parts = view.x.chunk(view.groups if self.recipe.teacher_mode == "train" else 1)
        mode, weights = self.recipe.teacher_mode, self.recipe.teacher_weights
        logits = [ensemble(self.teachers, x, mode, weights) for x in parts]
        return logits[0] if len(logits) == 1 else torch.cat(logits)


class LabelledViews(ViewBatches):
    """The views of one or several networks, and their targets from a labeler.

    Attributes:
        per_epoch: number of batches of an epoch.
    """

    def __init__(self, images: Inputs, views: Sequence[Views], labeler: Labeler):
        """Take the images `(n, c, h, w)`, the views of each network, and the labeler."""
        student = torch.ones(len(views), device=images.device) if labeler.calibrates else None
        super().__init__(
            lambda index: (images[index], index), views, lambda view, _: labeler.target(view, student)
        )
        self._labeler = labeler
        self.per_epoch = views[0].batches_per_epoch
        self._stored: dict[int, list[ViewDraw]] = {}
        if student is not None:
            self.state = {"student temperature": student}

    def draw(self, epoch: int) -> Iterator[ViewDraw]:
        """See `Batches`."""
        return self._labeler.draws(epoch, self)

    def epoch(self, epoch: int) -> Iterator[ViewDraw]:
        """Yield the draws of the batches of an epoch of the views."""
        return super().draw(epoch)

    def batch(self, epoch: int, number: int) -> ViewDraw:
        """Return the draw of one batch of an epoch of the views. The draws of each epoch are kept."""
        if epoch not in self._stored:
            self._stored[epoch] = list(super().draw(epoch))
        return self._stored[epoch][number]
