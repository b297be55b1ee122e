"""Two small plots of a board: values against the publication of the method, and against the date of the entry.

The step lines are the best ranked entry so far at each IPC. Entries that are not ranked have hollow markers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from ..core.boards import Board
from ..core.entries import REFERENCE
from ..core.method_info import links_of, publication_month
from ..core.ranking import RANKED
from .curves import Plot, Series, draw, metric_label, scale


class Event(NamedTuple):
    """An entry and when it, or its method, appeared."""

    time: float
    ipc: int
    value: float
    label: str
    style: str
    ranked: bool


def histories(board: Board) -> list[Plot]:
    """Return the plots of a board that have at least two points in time."""
    events = [*_events(board)]
    published = [
        event._replace(time=year + (month - 0.5) / 12)
        for event in events
        if (month_of := publication_month(event.label.partition(" #")[0])) is not None
        for year, month in [month_of]
    ]
    metric = metric_label(board)
    years = "–".join(sorted({record.created[:4] for record in board.records}))
    plots = []
    for title, x_label, found, ticks in (
        (f"{metric} against the date of the paper", "first version of the paper", published, _years),
        (f"{metric} against the date of the entry", f"day of the entry, {years}", events, _days),
    ):
        if len({event.time for event in found}) > 1:
            series = [*_best(found), *(_point(event) for event in found)]
            plots.append(draw(title, x_label, metric, series, ticks(found), log=False))
    return plots


def _events(board: Board) -> Iterator[Event]:
    for record in board.records:
        if record.status == "done" and record.method != REFERENCE:
            ranked = board.places.get(record.key) in RANKED
            time = datetime.fromisoformat(record.created).timestamp() / 86_400  # days
            style = links_of(record.method).family + " hollow" * (not ranked)
            value = scale(board) * record.summary().mean
            yield Event(time, record.ipc, value, board.label_of.get(record.key, record.method), style, ranked)


def _best(events: Sequence[Event]) -> Iterator[Series]:
    """Yield the best ranked value so far at each IPC as a step line, up to the last event of any kind."""
    end = max(event.time for event in events)
    for ipc in sorted({event.ipc for event in events}):
        points: list[tuple[float, float]] = []
        for event in sorted(e for e in events if e.ranked and e.ipc == ipc):
            if not points or event.value > points[-1][1]:
                points += [(event.time, value) for _, value in points[-1:]] + [(event.time, event.value)]
        if points:
            yield Series(
                "", "so-far", f"IPC {ipc}, best so far", [*points, (end, points[-1][1])], f"IPC {ipc}"
            )


def _point(event: Event) -> Series:
    return Series(event.label, event.style, f"{event.label}, IPC {event.ipc}", [(event.time, event.value)])


def _years(events: Sequence[Event]) -> list[tuple[float, str]]:
    """Return at most five years."""
    first, last = (int(f(event.time for event in events)) for f in (min, max))
    return [(float(year), str(year)) for year in range(first, last + 2, 1 + (last + 1 - first) // 5)]


def _days(events: Sequence[Event]) -> list[tuple[float, str]]:
    """Return at most five dates."""
    first, last = (int(f(event.time for event in events)) for f in (min, max))
    days = range(first, last + 2, 1 + (last + 1 - first) // 5)
    return [(float(day), f"{datetime.fromtimestamp(day * 86_400, UTC):%d %b}") for day in days]
