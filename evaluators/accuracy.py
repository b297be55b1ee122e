"""Test accuracy of fresh networks trained on the synthetic set, the standard metric of the literature."""

from __future__ import annotations

from collections.abc import Iterator

from dd_bench.api import EvaluationContext, Evaluator, Measurement, RealSet, SyntheticSet

from ._scoring import check_at_least, check_images, fresh_networks_on, measurement, set_measurement


class Accuracy(Evaluator):
    """Test accuracy of each of `num_networks` fresh networks trained under the run's protocol.

    The seed of network i depends only on the run's seed and i, so that all sets are evaluated with the same initial
    networks. Each network is tested once, after its last step, unless the protocol has another selection rule.
    """

    main_metric = "accuracy"

    def __init__(self, *, num_networks: int):
        """Take the number of fresh networks per synthetic set.

        Raises:
            ValueError: `num_networks` is less than 1.
        """
        check_at_least(1, num_networks=num_networks)
        self.num_networks = num_networks

    def check_set(self, syn: SyntheticSet, real: RealSet) -> str | None:
        """See `Evaluator`."""
        return check_images(syn)

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`."""
        fresh, seeds = fresh_networks_on(syn, real, ctx), self.seeds(ctx)
        yield set_measurement(fresh)
        for network, value in fresh.scores(seeds, total=self.num_networks):
            yield measurement(network, seeds[network], {self.main_metric: value})

    def seeds(self, ctx: EvaluationContext) -> dict[int, int]:
        """Return a dictionary from the number of each unfinished network to its seed."""
        return {i: ctx.seed_for("evaluate", i) for i in range(self.num_networks) if i not in ctx.finished}
