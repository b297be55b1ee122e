"""Test accuracy of fresh networks trained on the synthetic set: the number that every paper reports."""

from __future__ import annotations

from collections.abc import Iterator

from dd_bench.api import EvaluationContext, Evaluator, Measurement, RealSet, SyntheticImages, SyntheticSet

from ._scoring import fresh_networks_on, measurement, remarks


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

    def check_set(self, syn: SyntheticSet, real: RealSet) -> str | None:
        """See `Evaluator`."""
        if isinstance(syn, SyntheticImages):
            return None
        who = type(self).__name__.lower()
        return f"evaluator {who} measures images, this set holds {syn.kind}. Use evaluator=graph"

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`."""
        fresh, seeds = fresh_networks_on(syn, real, ctx), self.seeds(ctx)
        yield remarks(fresh)
        for network, value in fresh.scores(seeds, total=self.num_networks):
            yield measurement(network, seeds[network], {self.main_metric: value})

    def seeds(self, ctx: EvaluationContext) -> dict[int, int]:
        """Returns the seed of each network that a killed run has not finished, by its number."""
        return {i: ctx.seed_for("evaluate", i) for i in range(self.num_networks) if i not in ctx.finished}
