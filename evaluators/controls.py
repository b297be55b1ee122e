"""Accuracy beside its controls: random images of equal number under the same labels, and the parts of a set."""

from __future__ import annotations

from collections.abc import Iterator

from dd_bench.api import EvaluationContext, Measurement, RealSet, SyntheticSet

from ._scoring import (
    control_context,
    control_size,
    fresh_networks_on,
    measurement,
    random_control,
    remarks,
    scores_of_each,
)
from .accuracy import Accuracy


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

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`; all scores of one network at a time."""
        own, seeds = fresh_networks_on(syn, real, ctx), self.seeds(ctx)
        equal_steps = self.equal == "steps"
        controls, notes = self._controls(syn, real, ctx)
        of_controls = {
            name: fresh_networks_on(control, real, control_context(control, own, ctx, equal_steps))
            for name, control in controls.items()
        }
        yield remarks(own, *notes)
        own_first = {self.main_metric: own} | dict(reversed(of_controls.items()))
        for network, values in scores_of_each(own_first, seeds, self.num_networks):
            yield measurement(network, seeds[network], values)

    def _controls(
        self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext
    ) -> tuple[dict[str, SyntheticSet], list[str]]:
        """Returns the sets to score beside `syn`, none where nobody can label them, and remarks."""
        labels, notes = ctx.protocol.labels, []
        if labels is not None and labels.source is not None:  # those are of the set alone
            if not ctx.teachers:
                return {}, [
                    "no controls: protocol.labels.source labels the set alone, and the run has no teacher"
                ]
            notes.append(
                "the controls are labelled by this run's teachers, the set by protocol.labels.source"
            )
        if (size := control_size(real, ctx)) < ctx.ipc:
            notes.append(f"the random control has {size} images a class, as many as the smallest class")
        return {"random": random_control(real, ctx, "random control"), **syn.controls()}, notes
