"""Paired t-tests between records. Networks with the same index have the same seed for every set."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from dd_bench.records.intervals import Difference, bootstrap_interval, paired_difference
from dd_bench.records.record import Record

from ..core.differences import by_seed
from ..core.entries import Track
from ..core.ranking import holm
from .formatting import number
from .markup import MARKDOWN, markdown_table


class Pair(NamedTuple):
    """The difference `first - second` between two records, and its p-value after Holm's correction.

    `difference` has a Student's t interval. `bootstrap` has the ends of the bootstrap interval, which assumes no
    distribution. `left_out` is the number of networks of each record that were not compared.
    """

    first: Record
    second: Record
    difference: Difference
    bootstrap: tuple[float, float]
    left_out: tuple[int, int]
    adjusted: float


def compare(records: Sequence[Record]) -> list[Pair]:
    """Return all pairs of records, with the paired difference of their main metric.

    The differences are over the network seeds that both records have. The result applies to the evaluated sets, or to
    the mean of the sets if a record has several. It does not apply to the methods: another set of the same method may
    give another result.

    Raises:
        ValueError: the records are from several tracks, or two records have fewer than two network seeds in common.
    """
    if len(tracks := {Track.of(r) for r in records}) > 1:
        raise ValueError(f"records must have the same track, got {len(tracks)} tracks: {sorted(tracks)}")
    pairs = []
    for a, b in combinations(records, 2):
        mine, other = by_seed(a), by_seed(b)
        shared = sorted(mine.keys() & other.keys())
        if len(shared) < 2:
            raise ValueError(
                f"{name(a)} and {name(b)} must share at least 2 network seeds, got {len(shared)}. Evaluate both "
                "with the same seed=... and evaluator.num_networks=2 or more"
            )
        first, second = [mine[s] for s in shared], [other[s] for s in shared]
        ends = bootstrap_interval([x - y for x, y in zip(first, second, strict=True)])
        left_out = _without_seeds(a, shared), _without_seeds(b, shared)
        pairs.append((a, b, paired_difference(first, second), ends, left_out))
    adjusted = holm([pair[2].p for pair in pairs])
    return [Pair(*pair, p) for pair, p in zip(pairs, adjusted, strict=True)]


def pairs_table(pairs: Sequence[Pair]) -> str:
    """Return the pairs as a Markdown table.

    Networks that are not compared, because the other record has no network with their seed, have a column of their own.
    """
    header = ["First", "Second", "Difference", "95 % CI", "Bootstrap", "n", "p", "p (Holm)"]
    incomplete = any(any(pair.left_out) for pair in pairs)
    header += ["Left out (no such seed in the other)"] * incomplete
    rows = []
    for pair in pairs:
        d, metric = pair.difference, pair.first.main_metric
        ends = [" to ".join(number([x], metric) for x in both) for both in ((d.low, d.high), pair.bootstrap)]
        row = [name(pair.first), name(pair.second), number([d.mean], metric), *ends, str(d.n)]
        row += [f"{d.p:.2g}", f"{pair.adjusted:.2g}"]
        first, second = pair.left_out
        row += [f"{first} networks of the first, {second} of the second"] * incomplete
        rows.append([MARKDOWN.escape(x) for x in row])
    return markdown_table(header, rows, left=2)


def _without_seeds(record: Record, seeds: Sequence[int]) -> int:
    """Return the number of networks of all sets that have none of these seeds."""
    return sum(s.metric == record.main_metric and s.seed not in seeds for s in record.scores)


def name(record: Record) -> str:
    """Return e.g. `dm, IPC 10 (688d6fb6)`."""
    return f"{record.method}, IPC {record.ipc} ({record.key[:8]})"
