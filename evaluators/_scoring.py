"""What several evaluators share: fresh networks for a set under the run's protocol, and scores network by network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from dd_bench.api import (
    EvaluationContext,
    FreshNetworks,
    ImageSet,
    LabelCost,
    Measurement,
    RealSet,
    Score,
    SyntheticImages,
    SyntheticSet,
    labelled_data,
)


def fresh_networks_on(syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> FreshNetworks:
    """Returns the fresh networks of a set of images under the run's protocol, with the cost of their labels."""
    assert isinstance(syn, SyntheticImages), "`check_set` refuses other sets"
    images, labels = syn.network_inputs(ctx.device)
    protocol, notes = ctx.protocol.at_rate(syn.lr), []
    if protocol != ctx.protocol:
        notes.append(f"fresh networks were trained at the set's learned rate {protocol.recipe.lr:.4g}")
    labelled = cost = None
    if protocol.labels is not None:
        labelled = labelled_data(images, labels, syn.identity(), protocol.recipe, protocol.labels, real, ctx)
        labeler = labelled.labeler
        cost = LabelCost(protocol.labels.kind, labeler.label_bytes, labeler.forwards, labelled.teachers)
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
    )


def remarks(fresh: FreshNetworks, *notes: str) -> Measurement:
    """Returns the measurement that an evaluator yields first: notes and label cost of the set."""
    return Measurement(notes=(*fresh.notes, *notes), label_cost=fresh.label_cost)


def measurement(network: int, seed: int, values: Mapping[str, float], unit: int | None = None) -> Measurement:
    """Returns the measurement of one network: its value of each metric."""
    return Measurement(
        [
            Score(metric=metric, value=value, set=0, network=network, seed=seed, unit=unit)
            for metric, value in values.items()
        ]
    )


def scores_of_each(
    fresh: Mapping[str, FreshNetworks], seeds: dict[int, int], total: int
) -> Iterator[tuple[int, dict[str, float]]]:
    """Yields `(network, accuracy by name)`: one network of each of `fresh`, from the network's seed.

    Where `total` networks are trained several at a time, all of them are trained, name after name, before the first
    yield.
    """
    done: dict[str, dict[int, float]] = {}
    if any(f.parallelism(total) for f in fresh.values()):
        done = {name: dict(f.scores(seeds, total)) for name, f in fresh.items()}
    for network, seed in seeds.items():
        yield (
            network,
            {
                name: done[name][network] if done else f.score(seed, f.compiles(total))
                for name, f in fresh.items()
            },
        )


def control_context(
    control: SyntheticSet, of: FreshNetworks, ctx: EvaluationContext, equal_steps: bool
) -> EvaluationContext:
    """Returns the context of a control: labelled by the run's teachers, and trained for as many steps, or epochs.

    Sets of other sizes take other numbers of steps in the same epochs.
    """
    protocol = ctx.protocol
    if protocol.labels is not None:
        own = protocol.labels.model_copy(update={"source": None})
        protocol = protocol.model_copy(update={"labels": own})
    if equal_steps:
        recipe = protocol.recipe.in_step_with(len(control.labels), len(of.images))
        protocol = protocol.model_copy(update={"recipe": recipe})
    return replace(ctx, protocol=protocol)


def control_size(real: RealSet, ctx: EvaluationContext) -> int:
    """Returns the random images a class of a control: as many as the set has, or as the smallest class holds."""
    return min(ctx.ipc, int(real.train.counts.min()))


def random_control(real: RealSet, ctx: EvaluationContext, *stream: str | int) -> ImageSet:
    """Draws random training images, `control_size` of each class, from the stream `stream`."""
    index = real.train.draw(control_size(real, ctx), ctx.generator(*stream)).flatten()
    return ImageSet.coreset(real, index)
