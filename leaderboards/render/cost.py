"""Accuracy against cost: stored bits, seconds to create a set and seconds to evaluate it.

The table marks the Pareto fronts by bits and by seconds. Sets with fewer bits per value have rows of their own. Entries
whose hyper-parameters were chosen on test data are not ranked, so they are not on a front and do not remove others from
it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dd_bench.records.record import Record

from ..core.bits import stored_bits
from ..core.entries import REFERENCE, Track
from ..core.hyperparameters import origin
from ..core.row_labels import record_labels
from ..core.selectors import MAIN_EVALUATORS
from .formatting import networks, number, with_marks
from .markup import MARKDOWN, markdown_table


class Point(NamedTuple):
    """The score and the cost of one entry."""

    label: str
    ipc: int
    record: Record
    value: float
    bits: int  # of a set, including soft labels and fitted transforms, see `stored_bits`
    creation: float  # seconds per set: preparation (teachers, experts), distillation and labelling
    evaluation: float  # seconds per fresh network, including its controls


def points(records: Sequence[Record]) -> dict[Track, list[Point]]:
    """Return the points of each track, sorted by the size of the set. The whole training set has no point."""
    groups: dict[Track, list[Record]] = defaultdict(list)
    for record in records:
        measures_learning = record.evaluator.partition("(")[0] in MAIN_EVALUATORS
        if (
            measures_learning
            and record.status == "done"
            and record.method != REFERENCE
            and record.stored_bytes
        ):
            groups[Track.of(record)].append(record)
    found = {}
    for track, group in sorted(groups.items()):
        label_of = record_labels(group)
        unsorted = [_point(r, label_of[r.key]) for r in group]
        found[track] = sorted(unsorted, key=lambda p: (p.bits, p.creation, p.label, p.record.key))
    return found


def creation_seconds(record: Record) -> float:
    """Return the seconds to create one set of a record: preparation and labelling in full, and one distillation."""
    seconds = record.seconds
    shared = sum(seconds.get(stage, 0.0) for stage in ("prepare", "relabel"))
    return shared + seconds.get("distill", 0.0) / record.summary().num_sets


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[bool]:
    """Return for each point whether it is on the Pareto front.

    A point is not on the front if another point has at least the same value at a lower cost, or a higher value at the
    same or a lower cost. If several points are equal, either all or none of them are on the front.
    """
    pairs = list(zip(costs, values, strict=True))
    return [
        not any((c <= cost and v > value) or (c < cost and v >= value) for c, v in pairs)
        for cost, value in pairs
    ]


def ranked_front(records: Sequence[Record], costs: Sequence[float]) -> list[bool]:
    """Return for each record whether it is on the Pareto front of the records that may be ranked.

    Args:
        records: records of one track.
        costs: cost of each record.
    """
    fair = [origin(record).choice != "test" for record in records]
    pairs = [(c, r.summary().mean) for c, r, is_fair in zip(costs, records, fair, strict=True) if is_fair]
    on_front = iter(pareto_front([c for c, _ in pairs], [v for _, v in pairs]))
    return [is_fair and next(on_front) for is_fair in fair]


def cost_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return a title and a Markdown table for each track with at least two entries."""
    header = [
        "Method",
        "IPC",
        "Mean ± std",
        "n",
        "Bits",
        "Creation, s",
        "Evaluation, s",
        "Front by bits",
        "Front by seconds",
    ]
    tables = []
    for track, group in points(records).items():
        if track.compares_labels:
            continue
        if len(group) > 1:
            title = f"{track.dataset}: {track.metric}, {track.protocol} v{track.version}, {track.selection}, "
            title += f"{track.label_mode} labels, {track.evaluator}, {track.model}"
            title += f", {track.teachers}" * bool(track.teachers)
            tables.append((title, markdown_table(header, list(_rows(group)), left=1)))
    return tables


def _rows(group: Sequence[Point]) -> Iterator[list[str]]:
    records = [p.record for p in group]
    by_time = ranked_front(records, [p.creation for p in group])
    by_bits = ranked_front(records, [p.bits for p in group])
    for point, few_bits, few_seconds in zip(group, by_bits, by_time, strict=True):
        s = point.record.summary()
        row = [
            with_marks(point.label, [point.record]),
            str(point.ipc),
            number([s.mean, s.std], point.record.main_metric),
            networks(point.record),
        ]
        row += [f"{point.bits:,}", f"{point.creation:,.2f}", f"{point.evaluation:,.2f}"]
        row += ["yes" * few_bits, "yes" * few_seconds]
        yield [MARKDOWN.escape(x) for x in row]


def _point(record: Record, label: str) -> Point:
    summary = record.summary()
    return Point(
        label,
        record.ipc,
        record,
        summary.mean,
        stored_bits(record),
        creation_seconds(record),
        record.seconds.get("evaluate", 0.0) / summary.num_networks,
    )
