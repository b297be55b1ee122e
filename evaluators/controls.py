"""Accuracy together with its controls: random real images with the same labeler, and parts of the set."""

from __future__ import annotations

from collections.abc import Iterator

from dd_bench.api import EvaluationContext, Measurement, RealSet, SyntheticSet

from ._scoring import (
    control_context,
    control_size,
    fresh_networks_on,
    measurement,
    paired_scores,
    random_control,
    set_measurement,
)
from .accuracy import Accuracy


class Controls(Accuracy):
    """`accuracy` of the set, `random` for as many random real images, and a score for each control of the set.

    With decoupled methods (such as SRe2L), networks learn mostly from the soft labels. The control `random` shows how
    accurate networks become with the same labeler on random images. A set with compensators (INFER) has the control
    `natural`, which contains only its natural images. Every control is labelled by the run's teachers, and the same
    networks are trained on it from the same seeds under the same protocol. Controls have no soft labels and no learned
    rate of their own.

    With M teachers, INFER's sets expand to M + 1 times as many images as they have natural images. With the same number
    of epochs, a control would take fewer steps and appear worse than it is. With `equal=steps`, networks are trained on
    the control for more epochs instead, and its stored labels then cover more epochs too. The size of batches still
    differs, e.g. if an epoch of a control has one full batch and one of 6 images. With `equal=batches`, the images of a
    control are repeated until there are as many as the set has. Epochs, batches per epoch and images per batch are then
    equal, and each natural image is used as often as it and its compensated images are in the set.
    """

    def __init__(self, *, num_networks: int, equal: str):
        """Take the number of fresh networks per set, and what is `equal` for the controls: steps, epochs or batches.

        Raises:
            ValueError: `equal` is none of these, or there is no network.
        """
        super().__init__(num_networks=num_networks)
        if equal not in ("steps", "epochs", "batches"):
            raise ValueError(
                f"evaluator.equal must be steps, epochs or batches, got {equal}. Example: evaluator.equal=steps"
            )
        self.equal = equal

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`. Each measurement contains all scores of one network."""
        on_set, seeds = fresh_networks_on(syn, real, ctx), self.seeds(ctx)
        controls, notes = self._controls(syn, real, ctx)
        on_controls = {
            name: fresh_networks_on(
                control,
                real,
                control_context(control, on_set, ctx, self.equal == "steps"),
                len(on_set.images) if self.equal == "batches" else None,
            )
            for name, control in controls.items()
        }
        yield set_measurement(on_set, *notes)
        fresh = {self.main_metric: on_set} | dict(reversed(on_controls.items()))
        for network, values in paired_scores(fresh, seeds, self.num_networks):
            yield measurement(network, seeds[network], values)

    def _controls(
        self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext
    ) -> tuple[dict[str, SyntheticSet], list[str]]:
        """Return the control sets and notes on them. If controls cannot be labelled, return no control sets."""
        labels, notes = ctx.protocol.labels, []
        if labels is not None and labels.source is not None:  # these labels exist for the set only
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
