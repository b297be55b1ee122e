"""Accuracy beside its controls: random images of equal number under the same labels, and the parts of a set."""

from __future__ import annotations

from collections.abc import Iterator

from dd_bench.api import Context
from dd_bench.data.dataset import RealSet
from dd_bench.records.record import Score
from dd_bench.synthetic.base import SyntheticSet
from dd_bench.synthetic.images import ImageSet

from .accuracy import Accuracy, beside, examination_of, scores_of_each


class Controls(Accuracy):
    """`accuracy` of the set, `random` of the same number of random real images, and what the set itself names.

    Soft labels carry most of what a network learns in this family, and random images under the same labeler show
    how much. A set of natural images with compensators names `natural`: its natural images alone, which are fewer.
    Every control is labelled by the run's teachers, and trains the same networks, from the same seeds, under the
    same protocol. INFER's set is shown as M + 1 times as many images as it has natural ones, so in as many epochs a
    control would take fewer steps, and look worse than it is: with `equal=steps` it takes more epochs instead. Its
    stored labels are then of more epochs too. A control has no soft labels or learned rate of its own.
    """

    def __init__(self, *, num_networks: int, equal: str):
        """Takes the number of fresh networks a set, and what the controls have as many of: `steps` or `epochs`."""
        super().__init__(num_networks=num_networks)
        if equal not in ("steps", "epochs"):
            raise ValueError(f"evaluator.equal={equal}: wanted steps or epochs")
        self.equal = equal

    def run(self, syn: SyntheticSet, real: RealSet, ctx: Context) -> Iterator[list[Score]]:
        """See `Evaluator`; all scores of one network at a time."""
        examination = examination_of(syn, real, ctx)
        examinations = {
            name: examination_of(
                control, real, beside(control, examination, ctx, steps=self.equal == "steps")
            )
            for name, control in self._controls(syn, real, ctx).items()
        }
        examinations[self.main_metric] = examination
        own_first = dict(reversed(examinations.items()))
        yield from scores_of_each(own_first, self.seeds(ctx), self.num_networks)

    def _controls(self, syn: SyntheticSet, real: RealSet, ctx: Context) -> dict[str, SyntheticSet]:
        """Returns the sets to score beside `syn`; none where nobody can label them."""
        labels = ctx.protocol.labels
        if labels is not None and labels.source is not None:  # those are of the set alone
            if not ctx.teachers:
                ctx.note(
                    "no controls: protocol.labels.source labels the set alone, and the run has no teacher"
                )
                return {}
            ctx.note("the controls are labelled by this run's teachers, the set by protocol.labels.source")
        per_class = min(ctx.ipc, int(real.train.counts.min()))
        if per_class < ctx.ipc:
            ctx.note(f"the random control has {per_class} images a class, as many as the smallest class")
        index = real.train.draw(per_class, ctx.generator("random control")).flatten()
        return {"random": ImageSet.coreset(real, index), **syn.controls()}
