"""Test accuracy of fresh networks trained on the synthetic set: the number that every paper reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from dd_bench.api import Context, Evaluator, Told
from dd_bench.data.dataset import RealSet
from dd_bench.evaluation.fresh_networks import Examination
from dd_bench.records.record import Score
from dd_bench.synthetic.base import SyntheticImages, SyntheticSet
from dd_bench.teachers.soft_labels import course


class Accuracy(Evaluator):
    """Trains `num_networks` fresh networks under the run's protocol; yields the test accuracy of each.

    The seed of network i is a function of the run's seed and i alone: two sets are scored by the same initial
    networks. Test data are touched once a network, after its last step, unless the protocol's selection rule
    says otherwise.
    """

    main_metric = "accuracy"

    def __init__(self, *, num_networks: int):
        """Takes the number of fresh networks a synthetic set."""
        if num_networks < 1:
            raise ValueError(f"evaluator.num_networks={num_networks}: at least one network must be trained")
        self.num_networks = num_networks

    def unsupported(self, syn: SyntheticSet, real: RealSet) -> str | None:
        """See `Evaluator`."""
        if isinstance(syn, SyntheticImages):
            return None
        who = type(self).__name__.lower()
        return f"evaluator {who} measures images, this set holds {syn.kind}. Use evaluator=graph"

    def run(self, syn: SyntheticSet, real: RealSet, ctx: Context) -> Iterator[list[Score]]:
        """See `Evaluator`."""
        examination = examination_of(syn, real, ctx)
        seeds = self.seeds(ctx)
        for network, value in examination.scores(seeds, of=self.num_networks):
            yield [Score(metric=self.main_metric, value=value, set=0, network=network, seed=seeds[network])]

    def seeds(self, ctx: Context) -> dict[int, int]:
        """Returns the seed of each network that a killed run has not finished, by its number."""
        return {i: ctx.seed_for("evaluate", i) for i in range(self.num_networks) if i not in ctx.finished}


def scores_of_each(
    examinations: dict[str, Examination],
    seeds: dict[int, int],
    of: int,
    instead: Callable[[str, int], float] | None = None,
) -> Iterator[list[Score]]:
    """Yields the scores of network after network: one of each examination, by its name, from the network's seed.

    What a lenient examination scores NaN is `instead(name, network)`. Where `of` networks are trained several at a time
    they are, examination after examination, before the first yield.
    """
    done: dict[str, dict[int, float]] = {}
    if any(examination.side_by_side(of) for examination in examinations.values()):
        done = {name: dict(e.scores(seeds, of)) for name, e in examinations.items()}
    for network, seed in seeds.items():
        values = {
            name: done[name][network] if done else e.score(seed, e.compiles(of))
            for name, e in examinations.items()
        }
        if instead is not None:
            values = {n: instead(n, network) if math.isnan(v) else v for n, v in values.items()}
        yield [
            Score(metric=name, value=value, set=0, network=network, seed=seed)
            for name, value in values.items()
        ]


def beside(control: SyntheticSet, of: Examination, ctx: Context, steps: bool) -> Context:
    """Returns the context of a control: labelled by the run's teachers, and trained for as many steps, or epochs.

    Sets of other sizes take other numbers of steps in the same epochs.
    """
    protocol = ctx.protocol
    if protocol.labels is not None:
        own = protocol.labels.model_copy(update={"source": None})
        protocol = protocol.model_copy(update={"labels": own})
    if steps:
        recipe = protocol.recipe.in_step_with(len(control.labels), len(of.images))
        protocol = protocol.model_copy(update={"recipe": recipe})
    return replace(ctx, protocol=protocol)


def examination_of(syn: SyntheticSet, real: RealSet, ctx: Context) -> Examination:
    """Returns what examines networks on a set under the run's protocol, and says in `ctx` who teaches them."""
    assert isinstance(syn, SyntheticImages), "an evaluator of images says what it does not support"
    images, labels = syn.shown(ctx.device)
    protocol = ctx.protocol.at_rate(syn.lr)
    if protocol != ctx.protocol:
        ctx.note(f"fresh networks were trained at the set's learned rate {protocol.recipe.lr:.4g}")
    taught = None
    if protocol.labels is not None:
        taught = course(images, labels, syn.identity(), protocol.recipe, protocol.labels, real, ctx)
        labeler = taught.labeler
        ctx.told = Told(protocol.labels.kind, labeler.label_bytes, labeler.forwards, taught.taught_by)
    return Examination(
        ctx.architecture, protocol, images, labels, real.test, real.val, real.flip, ctx.runtime, taught
    )
