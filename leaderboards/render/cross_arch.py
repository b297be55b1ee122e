"""What a set is worth to other networks, measured side by side: one table a track, the drop in brackets.

Entries of `evaluator=cross_arch` hold a value of each architecture for every network number, from one seed, so that
drops are means of pairs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean

from dd_bench.records.intervals import paired_difference
from dd_bench.records.record import Record

from ..core.entries import Track
from ..core.row_labels import side_by_side
from .formatting import networks, number
from .markup import MARKDOWN, markdown_table


def cross_arch_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Returns a title and a Markdown table for each track with values of several architectures."""
    tables = []
    for track, found, names in matrices(records):
        header = ["Method", "IPC", "n", f"{track.model} (its own)", *names]
        tables.append((track.title, markdown_table(header, list(_rows(found, names)), left=1)))
    return tables


def matrices(records: Sequence[Record]) -> Iterator[tuple[Track, list[Record], list[str]]]:
    """Yields each track with values of several architectures, its records, and the names of the architectures."""
    groups: dict[Track, list[Record]] = defaultdict(list)
    for record in records:
        if record.status == "done" and others(record):
            groups[Track.of(record)].append(record)
    for track, found in sorted(groups.items()):
        yield track, found, list(dict.fromkeys(name for r in found for name in others(r)))


def others(record: Record) -> list[str]:
    """Returns the architectures beside the record's own that it has values of."""
    prefix = f"{record.main_metric}:"
    return [metric.removeprefix(prefix) for metric in record.metrics if metric.startswith(prefix)]


def change(record: Record, name: str) -> tuple[float, float | None]:
    """Returns how far from the record's own network the architecture is, and half of its 95 % interval, over pairs.

    Pairs are networks of one number; with several sets the means of the sets.
    """
    own, other = record.sample(), record.sample(f"{record.main_metric}:{name}")
    if len(own) < 2 or len(own) != len(other):
        return fmean(other) - fmean(own), None
    d = paired_difference(other, own)
    return d.mean, (d.high - d.low) / 2


def _rows(records: Sequence[Record], names: Sequence[str]) -> Iterator[list[str]]:
    for ipc, method, of_one in side_by_side(records, lambda _: ""):
        record = of_one[""]
        main, own = record.main_metric, record.summary()
        row = [method, str(ipc), networks(record), number([own.mean, own.std], main)]
        for name in names:
            if name not in others(record):
                row.append("")
                continue
            s = record.summary(f"{main}:{name}")
            row.append(f"{number([s.mean, s.std], main)} ({number(change(record, name), main)})")
        yield [MARKDOWN.escape(x) for x in row]
