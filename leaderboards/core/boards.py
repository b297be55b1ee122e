"""Boards: for each track, a table of methods by IPC with ranks, footnotes and warnings, independent of any markup."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dd_bench.records.config_diff import changed_keys
from dd_bench.records.record import Record

from .entries import HARD_LABEL_RANDOM, Track
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
"""The baseline of random images. It shows how accurate networks are with these labels and this protocol alone."""


@dataclass(frozen=True)
class PublishedNumber:
    """A published number and the letter of its source."""

    number: Published
    letter: str


@dataclass(frozen=True)
class Cell:
    """The result of one method at one IPC."""

    record: Record | None = None
    place: Place | None = None  # None: not ranked
    reason: int | None = None  # 1-based footnote of a record without a number
    published: tuple[PublishedNumber, ...] = ()


@dataclass(frozen=True)
class Board:
    """The table of one track and the notes below it."""

    track: Track
    ipcs: list[int]
    rows: dict[str, list[Cell]]  # label -> one cell per IPC
    records: list[Record]  # of this track, in row order
    places: dict[str, Place]  # by record key
    reasons: list[str]
    sources: dict[str, Published]  # letter -> a number from this source
    variants: list[str]
    warnings: list[str]

    @cached_property
    def changed_hyperparameters(self) -> list[str]:
        """Lines of text, one for each method and each set of its hyper-parameters that differs from its YAML file."""
        found: dict[tuple[str, str], list[int]] = defaultdict(list)
        for record in self.records:
            if different := changed_keys("method", record.method, record.config.get("method", {})):
                found[record.method, ", ".join(different)].append(record.ipc)
        return [
            f"{method} at IPC {', '.join(map(str, sorted(set(ipcs))))} with {values} instead of the YAML defaults"
            for (method, values), ipcs in sorted(found.items())
        ]

    def has_published(self, column: int) -> bool:
        """Return whether any row has a published number in a column."""
        return any(cells[column].published for cells in self.rows.values())


def boards(records: Sequence[Record], published: Sequence[PublishedSet]) -> list[Board]:
    """Group records into boards, sorted by track. The order of `records` does not matter."""
    tracks: dict[Track, list[Record]] = defaultdict(list)
    for record in records:
        tracks[Track.of(record)].append(record)
    return [
        _board(track, tracks[track], _hard_label_random(track, tracks), find(published, track))
        for track in sorted(tracks)
    ]


def _hard_label_random(track: Track, tracks: Mapping[Track, list[Record]]) -> dict[int, Record]:
    """Return the random baselines with hard labels, keyed by IPC. A soft-label board shows them without a rank.

    The result is empty if `track` has hard labels.
    """
    if track.label_mode != "soft":
        return {}
    hard = tracks.get(track._replace(label_mode="hard"), [])
    found = [r for r in hard if r.method == CONTROL and r.status == "done"]
    # newest first, so that the dictionary keeps the oldest one, as does the first row of the hard-label board
    return {r.ipc: r for r in sorted(found, key=lambda r: (r.created, r.key), reverse=True)}


def _board(
    track: Track, records: list[Record], hard_random: Mapping[int, Record], published: PublishedSet | None
) -> Board:
    records = sorted(records, key=lambda r: (*_order(r.method), r.ipc, r.created, r.key))
    ipcs = sorted({r.ipc for r in records if r.method != REFERENCE} or {r.ipc for r in records})
    places = {key: place for ipc in ipcs for key, place in _ranked([r for r in records if r.ipc == ipc])}
    by_row, variants = _rows(records)
    reasons: list[str] = []
    letters: dict[tuple[str, str], str] = {}
    sources: dict[str, Published] = {}

    def with_letter(number: Published) -> PublishedNumber:
        letter = letters.setdefault((number.source, number.protocol), _letter(len(letters)))
        sources.setdefault(letter, number)
        return PublishedNumber(number, letter)

    shown = [Cell(hard_random.get(ipc)) for ipc in ipcs]
    rows = {HARD_LABEL_RANDOM: shown} if any(cell.record for cell in shown) else {}
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
            cells.append(Cell(record, place, reason, tuple(with_letter(n) for n in numbers)))
        rows[label] = cells
    warnings = _warnings(track, ipcs, records, set(hard_random))
    return Board(track, ipcs, rows, records, places, reasons, sources, variants, warnings)


def _ranked(records: list[Record]) -> Iterator[tuple[str, Place]]:
    candidates = [r for r in records if r.status == "done" and r.method != REFERENCE]
    yield from zip([r.key for r in candidates], rank(candidates), strict=True)


def _rows(records: list[Record]) -> tuple[dict[str, dict[int, Record]], list[str]]:
    """Assign each record to a row. A second experiment of a method at the same IPC gets its own row and a note."""
    rows: dict[str, dict[int, Record]] = defaultdict(dict)
    notes = []
    numbers: Counter[tuple[str, int]] = Counter()
    for record in records:
        here = record.method, record.ipc
        number = numbers[here] + 1
        label = record.method if number == 1 else f"{record.method} #{number}"
        while record.ipc in rows[label]:  # a method may itself be named `dm #2`
            number += 1
            label = f"{record.method} #{number}"
        numbers[here] = number
        rows[label][record.ipc] = record
        if number > 1:
            difference = _describe_difference(rows[record.method][record.ipc], record)
            notes.append(f"{label} at IPC {record.ipc}: entry {record.digest[:16]}, {difference}")
    return dict(sorted(rows.items(), key=lambda row: _order(row[0]))), notes


_NOT_MEASURED = ("out", "cache", "logger", "log_every", "checkpoint_seconds")
"""Configuration keys that do not change the measurement."""


def _describe_difference(first: Record, other: Record) -> str:
    """Describe how a second experiment of a method differs from the first."""
    a, b = (
        {
            "config": {k: v for k, v in r.config.items() if k not in _NOT_MEASURED},
            "seeds": r.seeds,
            "numbers": r.code.numbers,
        }
        for r in (first, other)
    )
    found = [f"{k.removeprefix('config.')}={v}" for k, v in sorted(_differences(a, b))]
    more = f" and {len(found) - 6} more" if len(found) > 6 else ""
    return "with " + ", ".join(found[:6]) + more if found else "with the same configuration and seeds"


def _differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys at which two configurations differ, with the value in the second (None if missing)."""
    if a == b:
        return
    inner = [x if isinstance(x, dict) else {} for x in (a, b)]
    value, other = (None if isinstance(x, dict) else x for x in (a, b))
    if value != other:
        yield path, other
    for key in inner[0] | inner[1]:
        yield from _differences(inner[0].get(key), inner[1].get(key), f"{path}.{key}" if path else str(key))


def _warnings(track: Track, ipcs: list[int], records: list[Record], hard_random: set[int]) -> list[str]:
    warnings = []
    have = {r.ipc for r in records if r.method == CONTROL and r.status == "done"} | hard_random
    if not have:
        warnings.append(f"no {CONTROL} baseline on this board")
    elif missing := [str(ipc) for ipc in ipcs if ipc not in have]:
        warnings.append(f"no {CONTROL} baseline on this board at IPC {', '.join(missing)}")
    if track.selection == "best_on_test":
        warnings.append(
            "networks were selected by their test score; this reproduces a paper, do not compare with other boards"
        )
    if (count := len({r.real_digest for r in records})) > 1:
        warnings.append(f"the entries use {count} versions of the real set (real_digest in the CSV)")
    weights: dict[str, set[str]] = defaultdict(set)
    for record in records if track.teachers else ():
        for teacher in record.teachers:
            weights[teacher.name].add(teacher.digest or "")
    if different := sorted(name for name, digests in weights.items() if len(digests) > 1):
        warnings.append(
            f"teachers of the same name have different weights: {', '.join(different)} (teachers_met in the CSV)"
        )
    if len(versions := sorted({r.code.numbers for r in records})) > 1:
        warnings.append(
            f"the entries were measured by code with different results: numbers versions {versions}"
        )
    return warnings


def _order(label: str) -> tuple[int, str]:
    method = label.partition(" #")[0]
    return (BASELINES.index(method) if method in BASELINES else len(BASELINES), label)


def _letter(index: int) -> str:
    high, low = divmod(index, 26)
    return (chr(ord("a") + high - 1) if high else "") + chr(ord("a") + low)
