"""Records compared network by network: those of one number start from one seed, whatever they are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from dd_bench.records.intervals import Difference, bootstrap_interval, paired_difference
from dd_bench.records.record import Record

from ..core.entries import Track
from ..core.ranking import holm
from .formatting import number
from .markup import MARKDOWN, markdown_table


class Pair(NamedTuple):
    """The difference between two records, the first less the second, and its p after Holm's correction.

    Its interval is Student's t, and beside it the ends of the bootstrap's, which assumes no distribution.
    """

    first: Record
    second: Record
    difference: Difference
    bootstrap: tuple[float, float]
    adjusted: float


def compare(records: Sequence[Record]) -> list[Pair]:
    """Returns every pair of records with the difference of their main metric over the networks that share seeds.

    The claim is about the sets that were measured (of several, about their mean), not about the methods: another set
    of the same method may come out otherwise.

    Raises:
        ValueError: records of several tracks, without a value, or with fewer than two networks of one seed.
    """
    if len(tracks := {Track.of(r) for r in records}) > 1:
        raise ValueError(
            f"like is compared with like, these records are of {len(tracks)} tracks: {sorted(tracks)}"
        )
    found = []
    for a, b in combinations(records, 2):
        mine, other = _by_seed(a), _by_seed(b)
        shared = sorted(mine.keys() & other.keys())
        if len(shared) < 2:
            raise ValueError(
                f"{name(a)} and {name(b)} share {len(shared)} seed(s) of networks, and pairs need two. Measure both "
                "with the same seed, and one set each"
            )
        first, second = [mine[s] for s in shared], [other[s] for s in shared]
        ends = bootstrap_interval([x - y for x, y in zip(first, second, strict=True)])
        found.append((a, b, paired_difference(first, second), ends))
    adjusted = holm([difference.p for *_, difference, _ in found])
    return [Pair(*one, p) for one, p in zip(found, adjusted, strict=True)]


def pairs_table(pairs: Sequence[Pair]) -> str:
    """Returns the pairs as a Markdown table."""
    header = ["First", "Second", "Difference", "95 % CI", "Bootstrap", "n", "p", "p (Holm)"]
    rows = []
    for pair in pairs:
        d, metric = pair.difference, pair.first.main_metric
        ends = [" to ".join(number([x], metric) for x in both) for both in ((d.low, d.high), pair.bootstrap)]
        row = [name(pair.first), name(pair.second), number([d.mean], metric), *ends, str(d.n)]
        rows.append([MARKDOWN.escape(x) for x in [*row, f"{d.p:.2g}", f"{pair.adjusted:.2g}"]])
    return markdown_table(header, rows, left=2)


def name(record: Record) -> str:
    """Returns e.g. `dm, IPC 10 (688d6fb6)`."""
    return f"{record.method}, IPC {record.ipc} ({record.key[:8]})"


def _by_seed(record: Record) -> dict[int, float]:
    """Returns the value of each network by its seed; of several sets their mean."""
    values: dict[int, list[float]] = {}
    for score in record.scores:
        if score.metric == record.main_metric:
            values.setdefault(score.seed, []).append(score.value)
    return {seed: sum(found) / len(found) for seed, found in values.items()}
