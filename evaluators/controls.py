"""Accuracy beside its controls: random images of equal number under the same labels, and the parts of a set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dd_bench.base import Context
from dd_bench.real import RealSet
from dd_bench.record import Score
from dd_bench.synthetic import ImageSet, SyntheticSet

from .accuracy import Accuracy, examination_of


class Controls(Accuracy):
    """`accuracy` of the set, `random` of the same number of random real images, and what the set itself names.

    Soft labels carry most of what a network learns in this family, and random images under the same labeler show
    how much. A set of natural images with compensators names `natural`: its natural images alone, which are fewer.
    Every control is labelled by the run's teachers, and trains the same networks, from the same seeds, under the
    same protocol. Its epochs are as many, so its steps are fewer where its images are: INFER's natural images are
    1 / (M + 1) of its set. A control has no soft labels or learned rate of its own.
    """

    def run(self, syn: SyntheticSet, real: RealSet, ctx: Context) -> Iterator[list[Score]]:
        """See `Evaluator`; all scores of one network at a time."""
        per_class = min(ctx.ipc, int(real.train.counts.min()))
        if per_class < ctx.ipc:
            ctx.note(f"the random control has {per_class} images a class, as many as the smallest class")
        index = real.train.draw(per_class, ctx.generator("random control")).flatten()
        sets = {"random": ImageSet.coreset(real, index), **syn.controls()}
        labels = ctx.protocol.labels
        if labels is not None and labels.source is not None:  # those are of the set alone
            if ctx.teachers:
                ctx.note(
                    "the controls are labelled by this run's teachers, the set by protocol.labels.source"
                )
            else:
                ctx.note(
                    "no controls: protocol.labels.source labels the set alone, and the run has no teacher"
                )
                sets = {}
        examinations = {name: examination_of(s, real, self._own_labels(ctx)) for name, s in sets.items()}
        examinations[self.main_metric] = examination_of(syn, real, ctx)
        for network, seed in self.seeds(ctx).items():
            values = {
                name: e.score(seed, e.compiles(self.num_networks))
                for name, e in reversed(examinations.items())
            }
            yield [
                Score(metric=name, value=value, set=0, network=network, seed=seed)
                for name, value in values.items()
            ]

    @staticmethod
    def _own_labels(ctx: Context) -> Context:
        """Returns the context of a control, which is labelled by the run's teachers."""
        if ctx.protocol.labels is None:
            return replace(ctx)
        labels = ctx.protocol.labels.model_copy(update={"source": None})
        return replace(ctx, protocol=ctx.protocol.model_copy(update={"labels": labels}))
