"""Boards: for each track, a table of methods by IPC with ranks, footnotes and warnings, independent of any markup."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from dd_bench.records.config_diff import STORED, changed_keys
from dd_bench.records.metric_names import all_runs_metric
from dd_bench.records.record import Record
from dd_bench.runtime.files import canonical

from .board_rows import board_rows
from .budget import Budgets, budgets, exceeds_ipc, relative_size
from .entries import (
    BASELINES,
    CONTROL,
    FOREIGN_REFERENCE,
    HARD_LABEL_RANDOM,
    REFERENCE,
    REFERENCE_PROTOCOL,
    Track,
    has_stored_precision,
)
from .hyperparameters import Origin, origins
from .published import Published, PublishedSet, find
from .ranking import Place, rank
from .row_settings import differing


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
    notes: Mapping[str, Mapping[int, str]]  # by row and IPC: how the settings differ
    mixed: frozenset[str]  # labels of rows whose cells have different settings
    settings: Mapping[str, str]  # by row of a method with several rows: what distinguishes it from them
    sizes: dict[str, float]  # by record key: stored bytes relative to IPC real samples per class with 8 bits
    origins: Mapping[str, Origin]  # by record key: how the hyper-parameters were chosen
    warnings: list[str]
    is_selection: bool = False  # a part of a board, whose rows are ranked among themselves

    @property
    def variants(self) -> list[str]:
        """Lines of text about rows and cells whose settings differ."""
        return [note for by_ipc in self.notes.values() for note in by_ipc.values()]

    @cached_property
    def label_of(self) -> dict[str, str]:
        """The row of each record that is shown, by record key."""
        return {c.record.key: label for label, cells in self.rows.items() for c in cells if c.record}

    @cached_property
    def changed_hyperparameters(self) -> list[str]:
        """Lines of text, one for each row and set of hyper-parameters that differ from its YAML file."""
        found: dict[tuple[str, str], list[int]] = defaultdict(list)
        for record in self.records:
            if different := changed_keys("method", record.method, record.config.get("method", {})):
                found[self.label_of.get(record.key, record.method), ", ".join(different)].append(record.ipc)
        return [
            f"{label} at IPC {', '.join(map(str, sorted(set(ipcs))))} with {values} instead of the YAML defaults"
            for (label, values), ipcs in sorted(found.items())
        ]

    def row_text(self, label: str) -> str:
        """Return what distinguishes a row from the others of its method, or that its settings differ by IPC."""
        return self.settings.get(label, "settings differ by IPC" if label in self.mixed else "")

    def has_published(self, column: int) -> bool:
        """Return whether any row has a published number in a column."""
        return any(cells[column].published for cells in self.rows.values())


def boards(records: Sequence[Record], published: Sequence[PublishedSet]) -> list[Board]:
    """Group records into boards, sorted by track. The order of `records` does not matter.

    Some records are left out, see `on_boards`.
    """
    tracks: dict[Track, list[Record]] = defaultdict(list)
    records = on_boards(records)
    for record in records:
        tracks[Track.of(record)].append(record)
    known = budgets(records)
    return [
        _board(track, tracks[track], _rows_of_other_tracks(track, tracks), find(published, track), known)
        for track in sorted(tracks)
    ]


def compared_board(board: Board) -> Board:
    """Return a board with the IPCs at which at least two methods were measured, and the rows that have one of them.

    Other IPCs belong to comparisons at equal bits. If there are no such IPCs, the board is returned as it is.
    """

    def methods(i: int) -> set[str]:
        return {r.method for c in board.rows.values() if (r := c[i].record)} - {REFERENCE}

    several = [i for i in range(len(board.ipcs)) if len(methods(i)) > 1]
    if not several:
        return board
    rows = {label: [cells[i] for i in several] for label, cells in board.rows.items()}
    return replace(
        board,
        ipcs=[board.ipcs[i] for i in several],
        rows={label: cells for label, cells in rows.items() if any(c.record or c.published for c in cells)},
    )


def on_boards(records: Sequence[Record]) -> list[Record]:
    """Return the records that boards show, in their order.

    Records of sets with a chosen precision (see `has_stored_precision`) are left out, and those that
    `without_replaced` leaves out.
    """
    return without_replaced([r for r in records if not has_stored_precision(r)])


def without_replaced(records: Sequence[Record]) -> list[Record]:
    """Return the records, in their order, without those that a larger measurement replaces.

    A larger measurement is an evaluation of the same sets in the same way with more networks, or a run of the method
    with more sets and the same settings.
    """
    cells: dict[object, list[Record]] = defaultdict(list)
    for r in records:
        stored = canonical(r.config.get(STORED))
        cells[Track.of(r), r.method, r.ipc, stored, tuple(t.digest for t in r.teachers)].append(r)
    replaced = {r.key for cell in cells.values() for r in cell if any(_replaces(other, r) for other in cell)}
    return [r for r in records if r.key not in replaced]


def _replaces(other: Record, record: Record) -> bool:
    """Return whether `other`, of the same cell, measures the same as `record` with more networks or more sets."""
    if not record.set_digests or other.status != "done":
        return False
    if other.set_digests == record.set_digests:
        return _networks(other) > _networks(record)
    return len(other.set_digests) > len(record.set_digests) and not differing(record, other)


def _networks(record: Record) -> int:
    return record.summary().num_networks if record.status == "done" else 0


def _rows_of_other_tracks(track: Track, tracks: Mapping[Track, list[Record]]) -> dict[str, dict[int, Record]]:
    """Return the records that a board shows without a rank, by label and IPC."""
    found = {
        FOREIGN_REFERENCE: _foreign_reference(track, tracks),
        HARD_LABEL_RANDOM: _hard_label_random(track, tracks),
    }
    return {label: by_ipc for label, by_ipc in found.items() if by_ipc}


def _foreign_reference(track: Track, tracks: Mapping[Track, list[Record]]) -> dict[int, Record]:
    """Return the oldest record of the whole training set under `full-30`, for every IPC of the board.

    The result is empty if the board has records of the whole training set, or does not show the score of the last step.
    """
    own = tracks[track]
    if any(r.method == REFERENCE for r in own) or track.selection != "last":
        return {}
    other = track._replace(protocol=REFERENCE_PROTOCOL, version=1, label_mode="hard", teachers="")
    found = [r for r in tracks.get(other, []) if r.method == REFERENCE and r.status == "done"]
    first = min(found, key=lambda r: (r.created, r.key), default=None)
    return {r.ipc: first for r in own} if first else {}


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
    track: Track,
    records: list[Record],
    others: Mapping[str, Mapping[int, Record]],
    published: PublishedSet | None,
    known: Budgets,
) -> Board:
    records = sorted(records, key=lambda r: (*_order(r.method), r.ipc, r.created, r.key))
    ipcs = sorted({r.ipc for r in records if r.method != REFERENCE} or {r.ipc for r in records})
    chosen = origins(records)
    places = {
        key: place
        for ipc in ipcs
        for key, place in _ranked([r for r in records if r.ipc == ipc], known, chosen)
    }
    sizes = {r.key: size for r in records if (size := relative_size(r, known)) is not None}
    by_row = sorted(board_rows(records, chosen), key=lambda row: _order(row.label))
    reasons: list[str] = []
    letters: dict[tuple[str, str], str] = {}
    sources: dict[str, Published] = {}

    def withletter_of(number: Published) -> PublishedNumber:
        letter = letters.setdefault((number.source, number.protocol), letter_of(len(letters)))
        sources.setdefault(letter, number)
        return PublishedNumber(number, letter)

    rows = {}
    for label, records_of in others.items():
        cells = [Cell(records_of.get(ipc)) for ipc in ipcs]
        if any(cell.record for cell in cells):
            rows[label] = cells
    for row in by_row:
        label, by_ipc, cells = row.label, row.records, []
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
            cells.append(Cell(record, place, reason, tuple(withletter_of(n) for n in numbers)))
        rows[label] = cells
    warnings = _warnings(track, ipcs, records, set(others.get(HARD_LABEL_RANDOM, ())))
    notes = {row.label: row.notes for row in by_row if row.notes}
    mixed = frozenset(row.label for row in by_row if row.mixed and row.label != REFERENCE)
    settings = {row.label: row.settings for row in by_row if row.settings}
    return Board(
        track, ipcs, rows, records, places, reasons, sources, notes, mixed, settings, sizes, chosen, warnings
    )


def _ranked(
    records: list[Record], known: Budgets, chosen: Mapping[str, Origin]
) -> Iterator[tuple[str, Place]]:
    done = [r for r in records if r.status == "done" and r.method != REFERENCE]
    candidates = []
    for record in done:
        if exceeds_ipc(record, known):
            yield record.key, "over_budget"
        elif chosen[record.key].choice == "test":
            yield record.key, "chosen_on_test"
        else:
            candidates.append(record)
    yield from zip([r.key for r in candidates], rank(candidates), strict=True)


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
    if (every := all_runs_metric(track.metric)) != track.metric:
        warnings.append(
            f"only the networks with the best validation scores are reported; this reproduces a paper. {every} in "
            "the tables of all metrics is the score of all networks"
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


def letter_of(index: int) -> str:
    """Return the letter of a source: a, b, ..., z, aa, ab, ..."""
    high, low = divmod(index, 26)
    return (chr(ord("a") + high - 1) if high else "") + chr(ord("a") + low)
