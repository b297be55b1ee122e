"""The best of several runs, which some papers report instead of all runs.

Under a protocol with `keep: 5`, a record has a score of every network, e.g. `auc`. Its main metric is `auc_best5`: the
same scores, of only the five networks of each set with the highest scores on validation data, `val`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from dd_bench.records.metric_names import best_runs_metric
from dd_bench.records.record import Score

VALIDATION = "val"
"""Metric that selects the runs: the score on validation data of the reported epoch."""


def best_runs(scores: Sequence[Score], metric: str, keep: int | None) -> list[Score]:
    """Return the scores of `best_runs_metric(metric, keep)`, or an empty list if `keep` is None.

    Equal validation scores are sorted by the index of the network. A set with at most `keep` networks keeps all.
    """
    if keep is None:
        return []
    validation: dict[int, list[Score]] = defaultdict(list)
    for score in scores:
        if score.metric == VALIDATION:
            validation[score.set].append(score)
    kept = {
        (s.set, s.network)
        for of_set in validation.values()
        for s in sorted(of_set, key=lambda s: (-s.value, s.network))[:keep]
    }
    name = best_runs_metric(metric, keep)
    return [
        s.model_copy(update={"metric": name})
        for s in scores
        if s.metric == metric and (s.set, s.network) in kept
    ]
