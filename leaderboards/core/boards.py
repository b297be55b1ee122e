"""Boards: a table of methods by IPC for each track, with places, footnotes and warnings, without markup."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dd_bench.records.config_diff import changed_keys
from dd_bench.records.record import Record

from .entries import BORROWED, Track
from .published import Published, PublishedSet, find
from .ranking import Place, rank

BASELINES = (
    "full",
    "random",
    "herding",
    "kcenter",
    "kmeans",
    "herding_graphs",
    "kcenter_graphs",
    "kmeans_graphs",
)
"""Rows that come first, in this order."""
REFERENCE = "full"
"""The whole training set: an upper bound without an IPC, shown in every column and never ranked."""
CONTROL = "random"
"""Without this row, nobody can tell what a method adds to its labels and its protocol."""


@dataclass(frozen=True)
class PublishedNumber:
    """A published number and the letter of its source."""

    number: Published
    letter: str


@dataclass(frozen=True)
class Cell:
    """What one method has at one IPC."""

    record: Record | None = None
    place: Place | None = None  # None: not ranked
    reason: int | None = None  # footnote of a record without a number, 1-based
    quotes: tuple[PublishedNumber, ...] = ()


@dataclass(frozen=True)
class Board:
    """One track: its table, and what must be said under it."""

    track: Track
    ipcs: list[int]
    rows: dict[str, list[Cell]]  # label -> one cell an IPC
    records: list[Record]  # of its track, in the order of the rows
    places: dict[str, Place]  # by key of the record
    reasons: list[str]
    sources: dict[str, Published]  # letter -> a number from it
    variants: list[str]
    warnings: list[str]

    @cached_property
    def changed_knobs(self) -> list[str]:
        """A line for each method whose entries were not made with the hyper-parameters of its YAML."""
        found: dict[tuple[str, str], list[int]] = defaultdict(list)
        for record in self.records:
            if knobs := changed_keys("method", record.method, record.config.get("method", {})):
                found[record.method, ", ".join(knobs)].append(record.ipc)
        return [
            f"{method} at IPC {', '.join(map(str, sorted(set(ipcs))))} with {knobs} instead of the defaults in its YAML"
            for (method, knobs), ipcs in sorted(found.items())
        ]

    def quoted(self, column: int) -> bool:
        """Whether any row has a published number in a column."""
        return any(cells[column].quotes for cells in self.rows.values())


def boards(records: Sequence[Record], published: Sequence[PublishedSet]) -> list[Board]:
    """Groups records into boards, sorted by track; the order of `records` does not matter."""
    tracks: dict[Track, list[Record]] = defaultdict(list)
    for record in records:
        tracks[Track.of(record)].append(record)
    return [
        _board(track, tracks[track], _borrowed(track, tracks), find(published, track))
        for track in sorted(tracks)
    ]


def _borrowed(track: Track, tracks: Mapping[Track, list[Record]]) -> dict[int, Record]:
    """Returns the random images that a board of soft labels shows without ranking them, by IPC."""
    if track.label_mode != "soft":
        return {}
    hard = tracks.get(track._replace(label_mode="hard"), [])
    found = [r for r in hard if r.method == CONTROL and r.status == "done"]
    return {
        r.ipc: r for r in sorted(found, key=lambda r: (r.created, r.key), reverse=True)
    }  # the first, as there


def _board(
    track: Track, records: list[Record], borrowed: Mapping[int, Record], published: PublishedSet | None
) -> Board:
    records = sorted(records, key=lambda r: (*_order(r.method), r.ipc, r.created, r.key))
    ipcs = sorted({r.ipc for r in records if r.method != REFERENCE} or {r.ipc for r in records})
    places = {key: place for ipc in ipcs for key, place in _ranked([r for r in records if r.ipc == ipc])}
    by_row, variants = _rows(records)
    reasons: list[str] = []
    letters: dict[tuple[str, str], str] = {}
    sources: dict[str, Published] = {}

    def quote(number: Published) -> PublishedNumber:
        letter = letters.setdefault((number.source, number.protocol), _letter(len(letters)))
        sources.setdefault(letter, number)
        return PublishedNumber(number, letter)

    shown = [Cell(borrowed.get(ipc)) for ipc in ipcs]
    rows = {BORROWED: shown} if any(cell.record for cell in shown) else {}
    for label, by_ipc in by_row.items():
        cells = []
        for ipc in ipcs:
            record = by_ipc.get(ipc)
            if record is None and label == REFERENCE:
                record = by_ipc[min(by_ipc)]
            reason = None
            if record and record.status != "done":
                text = f"{record.status}: {record.reason or 'no reason recorded'}"
                reasons += [text] if text not in reasons else []
                reason = reasons.index(text) + 1
            numbers = published.at(label, ipc) if published else []
            place = places.get(record.key) if record else None
            cells.append(Cell(record, place, reason, tuple(quote(n) for n in numbers)))
        rows[label] = cells
    warnings = _warnings(track, ipcs, records, set(borrowed))
    return Board(track, ipcs, rows, records, places, reasons, sources, variants, warnings)


def _ranked(records: list[Record]) -> Iterator[tuple[str, Place]]:
    ranked = [r for r in records if r.status == "done" and r.method != REFERENCE]
    for record, standing in zip(ranked, rank(ranked), strict=True):
        yield record.key, standing.place


def _rows(records: list[Record]) -> tuple[dict[str, dict[int, Record]], list[str]]:
    """Gives each record a row; a second experiment of one method at one IPC gets its own row and a note."""
    rows: dict[str, dict[int, Record]] = defaultdict(dict)
    notes = []
    numbers: Counter[tuple[str, int]] = Counter()
    for record in records:
        here = record.method, record.ipc
        number = numbers[here] + 1
        label = record.method if number == 1 else f"{record.method} #{number}"
        while record.ipc in rows[label]:  # a method may be named so
            number += 1
            label = f"{record.method} #{number}"
        numbers[here] = number
        rows[label][record.ipc] = record
        if number > 1:
            changes = _changes(rows[record.method][record.ipc], record)
            notes.append(f"{label} at IPC {record.ipc}: entry {record.digest[:16]}, {changes}")
    return dict(sorted(rows.items(), key=lambda row: _order(row[0]))), notes


_PLACES = ("out", "cache", "logger", "log_every", "checkpoint_seconds")
"""Keys of a configuration that say where things lie, not what is measured."""


def _changes(first: Record, other: Record) -> str:
    """Says what a second experiment of one method changes."""
    a, b = (
        {
            "config": {k: v for k, v in r.config.items() if k not in _PLACES},
            "seeds": r.seeds,
            "numbers": r.code.numbers,
        }
        for r in (first, other)
    )
    found = [f"{k.removeprefix('config.')}={v}" for k, v in sorted(_differences(a, b))]
    more = f" and {len(found) - 6} more" if len(found) > 6 else ""
    return "with " + ", ".join(found[:6]) + more if found else "with the same configuration and seeds"


def _differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted keys below which two configurations differ, with the second's values; none is None."""
    if a == b:
        return
    inner = [x if isinstance(x, dict) else {} for x in (a, b)]
    value, other = (None if isinstance(x, dict) else x for x in (a, b))
    if value != other:
        yield path, other
    for key in inner[0] | inner[1]:
        yield from _differences(inner[0].get(key), inner[1].get(key), f"{path}.{key}" if path else str(key))


def _warnings(track: Track, ipcs: list[int], records: list[Record], borrowed: set[int]) -> list[str]:
    warnings = []
    have = {r.ipc for r in records if r.method == CONTROL and r.status == "done"} | borrowed
    if not have:
        warnings.append(f"no {CONTROL} baseline on this board")
    elif missing := [str(ipc) for ipc in ipcs if ipc not in have]:
        warnings.append(f"no {CONTROL} baseline on this board at IPC {', '.join(missing)}")
    if track.selection == "best_on_test":
        warnings.append(
            "networks were picked by their test score: a reproduction, comparable with nothing else"
        )
    if (count := len({r.real_digest for r in records})) > 1:
        warnings.append(f"the entries saw {count} versions of the real set (real_digest in the CSV)")
    met: dict[str, set[str]] = defaultdict(set)
    for record in records if track.teachers else ():
        for teacher in record.teachers:
            met[teacher.name].add(teacher.digest or "")
    if changed := sorted(name for name, digests in met.items() if len(digests) > 1):
        warnings.append(
            f"teachers of one name have other weights: {', '.join(changed)} (teachers_met in the CSV)"
        )
    if len(versions := sorted({r.code.numbers for r in records})) > 1:
        warnings.append(f"the entries come from code whose results differ: numbers versions {versions}")
    return warnings


def _order(label: str) -> tuple[int, str]:
    method = label.partition(" #")[0]
    return (BASELINES.index(method) if method in BASELINES else len(BASELINES), label)


def _letter(index: int) -> str:
    high, low = divmod(index, 26)
    return (chr(ord("a") + high - 1) if high else "") + chr(ord("a") + low)
