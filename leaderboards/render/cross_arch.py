"""Entries of `evaluator=cross_arch`: one table per track, with the difference from the run's own network.

These entries have one value per architecture and network index. Networks with the same index have the same seed, so
differences are means over pairs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean

from dd_bench.records.intervals import paired_difference
from dd_bench.records.record import Record

from ..core.entries import Track
from ..core.row_labels import side_by_side
from .formatting import networks, number, with_marks
from .markup import MARKDOWN, markdown_table


def cross_arch_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return a title and a Markdown table for each track with values of several architectures."""
    tables = []
    for track, group, names in cross_arch_groups(records):
        header = ["Method", "IPC", "n", f"{track.model} (its own)", *names]
        tables.append((track.title, markdown_table(header, list(_rows(group, names)), left=1)))
    return tables


def cross_arch_groups(records: Sequence[Record]) -> Iterator[tuple[Track, list[Record], list[str]]]:
    """Yield each track with values of several architectures, its records and the names of the architectures."""
    groups: dict[Track, list[Record]] = defaultdict(list)
    for record in records:
        if record.status == "done" and other_networks(record):
            groups[Track.of(record)].append(record)
    for track, group in sorted(groups.items()):
        yield track, group, list(dict.fromkeys(name for r in group for name in other_networks(r)))


def other_networks(record: Record) -> list[str]:
    """Return the names of the architectures for which a record has values, except the run's own architecture."""
    prefix = f"{record.main_metric}:"
    return [metric.removeprefix(prefix) for metric in record.metrics if metric.startswith(prefix)]


def difference(record: Record, name: str) -> str:
    """Return the mean difference of an architecture from the run's own with its 95 % interval: `-9.0 [-17.7, -0.3]`.

    Pairs are networks with the same index, or the means of the sets if the record has several sets. There is no
    interval if the values cannot be paired or there is only one pair.
    """
    own, other = record.sample(), record.sample(f"{record.main_metric}:{name}")
    if len(own) < 2 or len(own) != len(other):
        return number([fmean(other) - fmean(own)], record.main_metric)
    d = paired_difference(other, own)
    mean, low, high = (number([x], record.main_metric) for x in (d.mean, d.low, d.high))
    return f"{mean} [{low}, {high}]"


def _rows(records: Sequence[Record], names: Sequence[str]) -> Iterator[list[str]]:
    for ipc, method, cells in side_by_side(records, lambda _: ""):
        record = cells[""]
        metric, own = record.main_metric, record.summary()
        row = [with_marks(method, [record]), str(ipc), networks(record), number([own.mean, own.std], metric)]
        for name in names:
            if name not in other_networks(record):
                row.append("")
                continue
            s = record.summary(f"{metric}:{name}")
            row.append(f"{number([s.mean, s.std], metric)} ({difference(record, name)})")
        yield [MARKDOWN.escape(x) for x in row]
