"""The difference between two entries, or two metrics of one entry, with its 95 % interval."""

from __future__ import annotations

from statistics import fmean

from dd_bench.records.intervals import Difference, paired_difference, unpaired_difference
from dd_bench.records.record import Record


def difference(a: Record, b: Record, metric_a: str | None = None, metric_b: str | None = None) -> Difference:
    """Return the mean of `a - b` with its interval. The metrics are the main metrics by default.

    Two metrics of one entry are paired by network. Two entries of one set each are paired by the seeds of their
    networks. If one of them has several sets, its independent values are the means of its sets, which have no
    counterpart, so the interval is that of Welch's t-test.

    Raises:
        ValueError: there are fewer than two values, or an entry does not have the metric.
    """
    metric_a, metric_b = metric_a or a.main_metric, metric_b or b.main_metric
    first, second = by_seed(a, metric_a), by_seed(b, metric_b)
    if a.key == b.key and not (a.has_one_set(metric_a) and a.has_one_set(metric_b)):
        return paired_difference(*([fmean(v) for v in a.by_set(metric)] for metric in (metric_a, metric_b)))
    shared = sorted(first.keys() & second.keys())
    if is_paired(a, b, metric_a, metric_b):
        return paired_difference([first[s] for s in shared], [second[s] for s in shared])
    return unpaired_difference(a.sample(metric_a), b.sample(metric_b))


def is_paired(a: Record, b: Record, metric_a: str | None = None, metric_b: str | None = None) -> bool:
    """Return whether two entries have one set each and at least two networks with the same seeds."""
    metric_a, metric_b = metric_a or a.main_metric, metric_b or b.main_metric
    one_set_each = a.has_one_set(metric_a) and b.has_one_set(metric_b)
    return one_set_each and len(by_seed(a, metric_a).keys() & by_seed(b, metric_b).keys()) > 1


def by_seed(record: Record, metric: str | None = None) -> dict[int, float]:
    """Return the value of each network by its seed, averaged over sets; the main metric by default."""
    metric = metric or record.main_metric
    found: dict[int, list[float]] = {}
    for score in record.scores:
        if score.metric == metric:
            found.setdefault(score.seed, []).append(score.value)
    return {seed: fmean(values) for seed, values in found.items()}
