"""Create labelled training batches from a synthetic set, a label recipe and the run's teachers (relabelling).

Stored labels are cached. If a run is killed, labelling resumes after the last complete epoch and gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.inputs import Inputs, index_batches
from dd_bench.records.record import TeacherId
from dd_bench.runtime.progress import Progress
from dd_bench.teachers.context import TeacherContext
from dd_bench.teachers.label_codec import LabelCodec
from dd_bench.teachers.label_store import LabelStore, StoreHeader, fill, views_of
from dd_bench.teachers.labelers import (
    Hard,
    Labeler,
    LabelledViews,
    OnlineTeacher,
    Replay,
    StaticSoft,
    ensemble,
)
from dd_bench.teachers.teachers import Teacher
from dd_bench.training.label_recipe import LabelRecipe
from dd_bench.training.label_schedule import LabelSchedule
from dd_bench.training.recipe import Recipe
from dd_bench.training.views import View, Views, without_flip


@dataclass(frozen=True)
class LabelledData:
    """Views (augmented images) of a synthetic set and their targets.

    With stored labels, every network is trained on the same views.

    Attributes:
        images: network inputs `(n, c, h, w)`.
        labeler: returns the target of each view.
        recipe: the training recipe; its `views` are not None.
        flip: whether a horizontal flip preserves the class.
        teachers: the teachers that label the views; empty for hard labels.
    """

    images: Inputs
    labeler: Labeler
    recipe: Recipe
    flip: bool
    teachers: tuple[TeacherId, ...] = ()

    def batches(self, seeds: Sequence[int]) -> LabelledViews:
        """Return the labelled batches of one or several networks, for the training with these seeds."""
        if isinstance(self.labeler, Replay):
            return LabelledViews(
                self.images, [views_of(self.labeler.store.header)] * len(seeds), self.labeler
            )
        recipe, n = self.recipe, len(self.images)
        assert recipe.views is not None
        views = [
            Views(recipe.views, n, seed=s, batch_size=recipe.batch_size, flip_allowed=self.flip)
            for s in seeds
        ]
        return LabelledViews(self.images, views, self.labeler)


def labelled_data(
    images: Inputs,
    labels: Tensor,
    identity: str,
    recipe: Recipe,
    label_recipe: LabelRecipe,
    real: RealSet,
    ctx: TeacherContext,
) -> LabelledData:
    """Return the labelled data of a set, computing and storing labels first if `label_recipe` requires it.

    Args:
        images: network inputs `(n, c, h, w)`.
        labels: classes, int64 `(n,)`.
        identity: identity of the stored set. The decoded inputs do not identify it, because their last bits depend on
            the device.
        recipe: how a network is trained.
        label_recipe: kind of labels, and their loss.
        real: the dataset, for its class names and whether a flip preserves the class.
        ctx: the context of the run, with its teachers.

    Raises:
        ValueError: the labels in `label_recipe.source` are missing, are damaged, or belong to other images, classes or
            views; or the labels require a teacher and the run has none.
    """
    labeler: Labeler
    recipe = recipe.with_epochs(len(images))
    schedule = LabelSchedule(label_recipe, recipe.epochs)
    if label_recipe.kind == "hard":
        return LabelledData(images, Hard(labels, label_recipe.hard_smoothing), recipe, real.flip)
    if label_recipe.kind == "replay" and label_recipe.source is not None:
        store = LabelStore(Path(label_recipe.source), ctx.device)
        teacher_ids = _teachers_of_store(store.header)
        expected = _header(identity, len(images), recipe, label_recipe, teacher_ids, real, store.header.seed)
        if reason := check_store(store, expected, label_recipe.pool):
            raise ValueError(reason)
        return LabelledData(
            images, Replay(label_recipe, labels, store, schedule), recipe, real.flip, teacher_ids
        )
    teachers = ctx.teachers_of(real)
    teacher_ids = tuple(ctx.used_teachers)
    weights = label_recipe.teacher_weights
    if weights is not None and len(weights) != len(teachers):
        raise ValueError(
            f"protocol.labels.teacher_weights must have one weight for each of {len(teachers)} teachers, got "
            f"{list(weights)}. Example: protocol.labels.teacher_weights=null"
        )
    if label_recipe.kind == "online":
        without = (recipe.epochs - schedule.soft_epochs) * len(images)
        forwards = len(teachers) * (recipe.samples(len(images)) - without)
        labeler = OnlineTeacher(label_recipe, labels, teachers, forwards, schedule)
    elif label_recipe.kind == "static":
        mode = label_recipe.teacher_mode
        parts = [ensemble(teachers, images[part], mode, weights) for part in index_batches(images, 500)]
        labeler = StaticSoft(label_recipe, labels, torch.cat(parts), schedule, _codec(label_recipe, real))
    else:
        seed = ctx.seed_for("labels")
        header = _header(identity, len(images), recipe, label_recipe, teacher_ids, real, seed)
        store = LabelStore(_store(images, header, label_recipe, teachers, ctx), ctx.device)
        labeler = Replay(label_recipe, labels, store, schedule)
    return LabelledData(images, labeler, recipe, real.flip, teacher_ids)


def _teachers_of_store(header: StoreHeader) -> tuple[TeacherId, ...]:
    """Return the teachers of stored labels."""
    names = header.teacher_names or ("?",) * len(header.teachers)
    return tuple(TeacherId(name=n, digest=d) for n, d in zip(names, header.teachers, strict=True))


def _header(
    identity: str,
    n: int,
    recipe: Recipe,
    label_recipe: LabelRecipe,
    teacher_ids: Sequence[TeacherId],
    real: RealSet,
    seed: int,
) -> StoreHeader:
    assert recipe.views is not None
    codec, schedule = _codec(label_recipe, real), LabelSchedule(label_recipe, recipe.epochs)
    per_epoch = recipe.steps_per_epoch(n)
    batches = schedule.stored_batches(per_epoch)
    return StoreHeader(
        images=identity,
        n=n,
        k=real.num_classes,
        epochs=schedule.stored_epochs if batches is None else -(-batches // per_epoch),
        seed=seed,
        batch_size=recipe.batch_size,
        views=without_flip(recipe.views, real.flip).model_dump(mode="json"),
        teachers=tuple(t.digest or "" for t in teacher_ids),
        class_names=real.class_names,
        teacher_mode=label_recipe.teacher_mode,
        top=label_recipe.top,
        temperature=codec.temperature,
        teacher_names=tuple(t.name for t in teacher_ids),
        rest=codec.rest,
        label_bits=codec.bits,
        batches=batches,
        teacher_weights=label_recipe.teacher_weights,
    )


def _codec(label_recipe: LabelRecipe, real: RealSet) -> LabelCodec:
    """Return how the logits of a view are stored."""
    codec = LabelCodec(real.num_classes, label_recipe.top, label_recipe.rest, label_recipe.label_bits)
    if codec.is_cut and codec.rest == "share" and label_recipe.loss == "kl":
        return replace(codec, temperature=label_recipe.temperature)
    return codec


def _store(
    images: Inputs,
    header: StoreHeader,
    label_recipe: LabelRecipe,
    teachers: Sequence[Teacher],
    ctx: TeacherContext,
) -> Path:
    def build(folder: Path) -> None:
        def teacher_logits(view: View) -> Tensor:
            return ensemble(teachers, view.x, label_recipe.teacher_mode, label_recipe.teacher_weights)

        with Progress("labels", header.epochs, 0) as progress:
            fill(folder, header, images, teacher_logits, lambda done: progress.advance_to(done, {}))

    return ctx.cache.entry("labels", {**header.metadata, **ctx.runtime.identity()}, build)


def check_store(store: LabelStore, expected: StoreHeader, pool: int) -> str | None:
    """Return why stored labels do not match a training and what to change, or None.

    Args:
        store: the stored labels.
        expected: the header that the training requires.
        pool: number of training epochs per stored epoch, see `LabelRecipe`.
    """
    header = store.header
    for field, title, advice in (
        ("class_names", "class names", "labels of this dataset"),
        ("images", "images", "the labels of this synthetic set"),
        ("views", "views", "the protocol.recipe.views that the labels were computed with"),
        ("batch_size", "batch size", f"protocol.recipe.batch_size={header.batch_size}"),
        ("top", "number of stored logits per view", f"protocol.labels.top={header.top}"),
        (
            "temperature",
            "temperature of the logits that are not stored",
            "protocol.labels.loss=mse"
            if header.temperature is None
            else f"protocol.labels.loss=kl protocol.labels.temperature={header.temperature}",
        ),
        ("rest", "values of the logits that are not stored", f"protocol.labels.rest={header.rest}"),
        ("label_bits", "bits of a logit", f"protocol.labels.label_bits={header.label_bits}"),
        ("teacher_mode", "teacher mode", f"protocol.labels.teacher_mode={header.teacher_mode}"),
        ("teacher_weights", "weights of the teachers", f"protocol.labels.teacher_weights={_weights(header)}"),
    ):
        stored, required = _difference(getattr(header, field), getattr(expected, field))
        if stored != required:
            return (
                f"the {title} of the labels {store.path} must match this training: expected {required}, got {stored}. "
                f"Use {advice}, or protocol.labels.source=null to compute new labels"
            )
    if (header.batches is None) != (expected.batches is None):
        unit = "epoch" if header.batches is None else "batch"
        return (
            f"the labels {store.path} must be stored in the unit of this training, got unit {unit}. "
            f"Use protocol.labels.pool_unit={unit}, or protocol.labels.source=null to compute new labels"
        )
    if header.batches is not None and expected.batches is not None and header.batches < expected.batches:
        return (
            f"the labels {store.path} must contain {expected.batches} batches, got {header.batches}. "
            "Use a larger protocol.labels.pool, or protocol.labels.source=null to compute new labels"
        )
    if header.epochs < expected.epochs:
        return (
            f"the labels {store.path} must cover {expected.epochs} epochs, got {header.epochs}. "
            f"Use protocol.recipe.epochs={header.epochs * pool}"
            ", or protocol.labels.source=null to compute new labels"
        )
    return None


def _weights(header: StoreHeader) -> list[float] | None:
    """Return the weights of the teachers as a value of the configuration."""
    return None if header.teacher_weights is None else list(header.teacher_weights)


def _difference(a: object, b: object) -> tuple[str, str]:
    """Return two values as text; for two mappings or sequences, only the first item in which they differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        key = next((k for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)), None)
        return (f"{key}={a.get(key)}", f"{key}={b.get(key)}") if key is not None else ("", "")
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        at = next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), None)
        return (f"item {at}: {a[at]}", f"item {at}: {b[at]}") if at is not None else ("", "")
    return str(a), str(b)
