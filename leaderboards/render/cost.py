"""Accuracy against what it costs: stored bytes, and seconds to distil and to train; what no other entry beats."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dd_bench.records.record import Record

from ..core.boards import REFERENCE
from ..core.entries import Track
from ..core.row_labels import labelled
from .formatting import networks, number
from .markup import MARKDOWN, markdown_table

MEASURED = ("accuracy", "controls", "graph")
"""Evaluators of how well networks learn; what others measure is no worth of a set to set against its cost."""


class Point(NamedTuple):
    """One entry: how good, and what it costs."""

    label: str
    ipc: int
    record: Record
    value: float
    size: int  # bytes of a set, labels and fitted transforms included
    making: float  # seconds: preparation (teachers, experts), distillation and labelling
    measuring: float  # seconds of a fresh network, with its controls


def points(records: Sequence[Record]) -> dict[Track, list[Point]]:
    """Returns the points of each track, the smallest first; the whole training set is none."""
    groups: dict[Track, list[Record]] = defaultdict(list)
    for record in records:
        plain = record.evaluator.partition("(")[0] in MEASURED
        if plain and record.status == "done" and record.method != REFERENCE and record.stored_bytes:
            groups[Track.of(record)].append(record)
    found = {}
    for track, group in sorted(groups.items()):
        label_of = labelled(group)
        made = [_point(r, label_of[r.key]) for r in group]
        found[track] = sorted(made, key=lambda p: (p.size, p.making, p.label, p.record.key))
    return found


def front(costs: Sequence[float], values: Sequence[float]) -> list[bool]:
    """Returns which points are on the Pareto front: none has as much value for less, nor more for as little.

    Equal points are all on it or all not.
    """
    pairs = list(zip(costs, values, strict=True))
    return [
        not any((c <= cost and v > value) or (c < cost and v >= value) for c, v in pairs)
        for cost, value in pairs
    ]


def cost_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Returns a title and a Markdown table for each track with two entries or more."""
    header = ["Method", "IPC", "Mean ± std", "n", "Bytes", "Making, s", "Measuring one, s", "Front"]
    tables = []
    for track, found in points(records).items():
        if len(found) > 1:
            title = f"{track.dataset}: {track.metric}, {track.protocol} v{track.version}, {track.selection}, "
            title += f"{track.label_mode} labels, {track.evaluator}, {track.model}"
            title += f", {track.teachers}" * bool(track.teachers)
            tables.append((title, markdown_table(header, list(_rows(found)), left=1)))
    return tables


def _rows(found: Sequence[Point]) -> Iterator[list[str]]:
    values = [p.value for p in found]
    by_size, by_making = front([p.size for p in found], values), front([p.making for p in found], values)
    for point, small, quick in zip(found, by_size, by_making, strict=True):
        s = point.record.summary()
        on = " and ".join(name for name, holds in (("bytes", small), ("making", quick)) if holds)
        row = [
            point.label,
            str(point.ipc),
            number([s.mean, s.std], point.record.main_metric),
            networks(point.record),
        ]
        row += [f"{point.size:,}", f"{point.making:,.2f}", f"{point.measuring:,.2f}", on]
        yield [MARKDOWN.escape(x) for x in row]


def _point(record: Record, label: str) -> Point:
    seconds, summary = record.seconds, record.summary()
    making = sum(seconds.get(stage, 0.0) for stage in ("prepare", "relabel"))  # of one set already
    making += seconds.get("distill", 0.0) / summary.num_sets
    return Point(
        label,
        record.ipc,
        record,
        summary.mean,
        sum(record.stored_bytes.values()),
        making,
        seconds.get("evaluate", 0.0) / summary.num_networks,
    )
