"""Functions shared by several evaluators: fresh networks under the run's protocol, measurements, and control sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from dd_bench.api import (
    EvaluationContext,
    FreshNetworks,
    ImageSet,
    Inputs,
    LabelCost,
    LazyInputs,
    Measurement,
    RealSet,
    Score,
    SyntheticImages,
    SyntheticSet,
    labelled_data,
)


def check_at_least(minimum: int, **arguments: int) -> None:
    """Raise ValueError if an argument of an evaluator is less than `minimum`."""
    for name, value in arguments.items():
        if value < minimum:
            raise ValueError(
                f"evaluator.{name} must be >= {minimum}, got {value}. Example: evaluator.{name}={minimum}"
            )


def check_images(syn: SyntheticSet) -> str | None:
    """Return why a set cannot be measured by an evaluator of images, or None."""
    if isinstance(syn, SyntheticImages):
        return None
    return (
        f"the evaluator requires a set of images, got a set of kind {syn.kind}. Use evaluator={syn.modality}"
    )


def fresh_networks_on(
    syn: SyntheticSet, real: RealSet, ctx: EvaluationContext, repeat_to: int | None = None
) -> FreshNetworks:
    """Return the fresh networks of a set of images under the run's protocol, with the cost of their labels.

    With `repeat_to`, an epoch consists of this number of images, see `repeat_images`.
    """
    assert isinstance(syn, SyntheticImages), "check_set rejects other sets"
    images, labels = syn.network_inputs(ctx.device)
    identity = syn.identity()
    if repeat_to is not None and repeat_to != len(labels):
        images, labels = repeat_images(images, labels, repeat_to)
        identity = f"{identity} repeated to {repeat_to}"
    protocol, notes = ctx.protocol.with_learned_lr(syn.lr), []
    if protocol != ctx.protocol:
        notes.append(f"fresh networks were trained at the set's learned rate {protocol.recipe.lr:.4g}")
    protocol = protocol.for_size(len(images))
    labelled = cost = None
    if protocol.labels is not None:
        labelled = labelled_data(images, labels, identity, protocol.recipe, protocol.labels, real, ctx)
        labeler = labelled.labeler
        cost = LabelCost(
            protocol.labels.kind,
            labeler.label_bytes,
            labeler.forwards,
            labelled.teachers,
            labeler.teacher_bytes,
        )
    return FreshNetworks(
        ctx.architecture,
        protocol,
        images,
        labels,
        real.test,
        real.val,
        real.flip,
        ctx.runtime,
        labelled,
        label_cost=cost,
        notes=tuple(notes),
        unfinished=ctx.unfinished(syn),
        curves=ctx.curves(syn),
    )


def repeat_images(images: Inputs, labels: Tensor, n: int) -> tuple[Inputs, Tensor]:
    """Return `n` images and their labels: all images in turn, again and again, the first ones once more often.

    The turn takes one image of each class after the other, so that no class is repeated more often than others.
    """
    classes = labels if labels.ndim == 1 else labels.argmax(1)
    by_class = classes.argsort(stable=True)
    counts = torch.bincount(classes)
    first = (counts.cumsum(0) - counts)[classes[by_class]]
    rank = torch.arange(len(classes), device=classes.device) - first  # number of the image within its class
    turn = by_class[rank.argsort(stable=True)]
    index = turn.repeat(-(-n // len(turn)))[:n]
    if isinstance(images, Tensor):
        return images[index], labels[index]
    return LazyInputs(n, images.device, lambda i: images[index[i]]), labels[index]


def set_measurement(fresh: FreshNetworks, *notes: str) -> Measurement:
    """Return the first measurement of an evaluator, which contains the notes and the label cost of the set."""
    return Measurement(notes=(*fresh.notes, *notes), label_cost=fresh.label_cost)


def measurement(network: int, seed: int, values: Mapping[str, float], unit: int | None = None) -> Measurement:
    """Return the measurement of one network, with its value of each metric."""
    return Measurement(
        [
            Score(metric=metric, value=value, set=0, network=network, seed=seed, unit=unit)
            for metric, value in values.items()
        ]
    )


def paired_scores(
    fresh: Mapping[str, FreshNetworks], seeds: dict[int, int], total: int
) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield `(network, accuracies)`, with the accuracy for each name in `fresh`. All names use the same seed.

    If several of `total` networks are trained at a time, all are trained before the first yield, one name after the
    other.
    """
    scores: dict[str, dict[int, float]] = {}
    if any(f.parallelism(total) for f in fresh.values()):
        scores = {name: dict(f.scores(seeds, total)) for name, f in fresh.items()}
    for network, seed in seeds.items():
        if scores:
            yield network, {name: scores[name][network] for name in fresh}
        else:
            yield network, {name: f.score(seed, f.compiles(total)) for name, f in fresh.items()}


def control_context(
    control: SyntheticSet, fresh: FreshNetworks, ctx: EvaluationContext, equal_steps: bool
) -> EvaluationContext:
    """Return the context in which a control is evaluated. The run's teachers label the control.

    With `equal_steps`, networks are trained on the control for as many steps as on the images of `fresh`, and
    otherwise for as many epochs.
    """
    protocol = ctx.protocol.for_size(len(fresh.images))
    if protocol.labels is not None:
        labels = protocol.labels.model_copy(update={"source": None})
        protocol = protocol.model_copy(update={"labels": labels})
    if equal_steps:
        recipe = protocol.recipe.match_steps(len(control.labels), len(fresh.images))
        protocol = protocol.model_copy(update={"recipe": recipe})
    return replace(ctx, protocol=protocol)


def control_size(real: RealSet, ctx: EvaluationContext) -> int:
    """Return the images per class of a random control: the smaller of ipc and the size of the smallest class."""
    return min(ctx.ipc, int(real.train.counts.min()))


def random_control(real: RealSet, ctx: EvaluationContext, *stream: str | int) -> ImageSet:
    """Draw `control_size` random training images of each class with the random stream `stream`."""
    index = real.train.draw(control_size(real, ctx), ctx.generator(*stream)).flatten()
    return ImageSet.coreset(real, index)
