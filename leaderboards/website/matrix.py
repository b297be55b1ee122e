"""One board as a matrix of methods by IPC: reference rows and selected images, distilled sets, then coresets.

A matrix has the values that a visitor compares. Everything else about an entry is on its page and on the page of the
board: costs, intervals, and how the hyper-parameters were chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from dd_bench.records.record import Record

from ..core.boards import Board, Cell
from ..core.budget import size_text
from ..core.entries import REFERENCE
from ..core.hyperparameters import MARKS
from ..core.method_info import Family, links_of
from ..core.ranking import RANKED
from ..render.formatting import interval_text, networks, number, published_text
from ..render.legend import SMALLEST_EXCESS
from ..render.place_marks import PLACE_MARKS
from .addresses import entry_url, method_url
from .board_table import data_controls
from .cells import is_constant

CORESETS_SHOWN = 5
"""Rows of coresets that are shown at first: each score has several, and they would be half of a matrix."""


class Value(NamedTuple):
    """One cell: a measured value with its link and tool tip, and the published numbers for the same method and IPC."""

    mean: str = ""
    std: str = ""
    mark: str = ""  # place or status; a CSS class
    marks: str = ""  # letters and factor of the bytes: `4×, T`
    url: str = ""
    tip: str = ""
    sort: float | None = None
    published: str = ""
    source: str = ""


class Line(NamedTuple):
    """One row of a matrix."""

    label: str
    method: str  # empty for a control without a set
    url: str  # of the method's page
    family: Family
    paper: str  # its address; empty if there is none
    is_variant: bool  # another experiment of a method, hidden at first unless it is best or tied
    settings: str  # what distinguishes the row from the others of its method
    notes: str  # all settings that differ, for a tool tip
    values: list[Value]


class Group(NamedTuple):
    """Rows of one kind."""

    title: str
    lines: list[Line]
    shown: int | None = None  # number of rows shown at first, if not all


class Matrix(NamedTuple):
    """A board for a template."""

    board: Board
    ipcs: list[int]
    groups: list[Group]
    has_published: bool
    variants: int  # number of rows hidden at first

    @property
    def lines(self) -> list[Line]:
        """All rows."""
        return [line for group in self.groups for line in group.lines]


def matrix(board: Board) -> Matrix:
    """Return a board as a matrix. Rows are sorted by value at the IPC with most entries, the highest first."""
    lines = [_line(board, label, cells) for label, cells in board.rows.items()]
    column = main_column(board)
    lines.sort(key=lambda line: _order(line, column))
    real = [line for line in lines if line.family in ("reference", "selection")]
    coresets = [line for line in lines if line.family == "coreset"]
    distilled = [line for line in lines if line.family not in ("reference", "selection", "coreset")]
    real += [_control(board, name, means) for name, means in data_controls(board).items()]
    groups = [
        Group("Real samples", real),
        Group("Distilled sets", [line for line in distilled if _is_ranked(line)]),
        Group("Distilled sets, not ranked", [line for line in distilled if not _is_ranked(line)]),
        Group("Real samples chosen by training dynamics", coresets, CORESETS_SHOWN),
    ]
    has_published = any(board.has_published(i) for i in range(len(board.ipcs)))
    variants = sum(line.is_variant for line in lines)
    return Matrix(board, board.ipcs, [group for group in groups if group.lines], has_published, variants)


def main_column(board: Board) -> int:
    """Return the index of the IPC with most values; of several, the largest IPC."""
    counts = [sum(_is_done(cells[i].record) for cells in board.rows.values()) for i in range(len(board.ipcs))]
    return max(range(len(counts)), key=lambda i: (counts[i], i))


def comparisons(board: Board) -> int:
    """Return the number of entries that were compared with the best of their IPC. The board used most has most."""
    return sum(place in RANKED for place in board.places.values())


def marks_used(matrices: Sequence[Matrix]) -> list[tuple[str, str]]:
    """Return the marks of several matrices with their meanings, for a legend."""
    used = {value.mark for one in matrices for line in one.lines for value in line.values}
    return [(mark.sign, mark.meaning) for place, mark in PLACE_MARKS.items() if mark.sign and place in used]


def _is_done(record: Record | None) -> bool:
    return record is not None and record.status == "done"


def _order(line: Line, column: int) -> tuple[bool, int, float]:
    """Return a sort key: `full` first, then rows with a value in the main column, the highest first."""
    columns = [column, *(i for i in range(len(line.values)) if i != column)]
    for rank, i in enumerate(columns):
        if (value := line.values[i].sort) is not None:
            return line.method != REFERENCE, rank, -value
    return line.method != REFERENCE, len(columns), 0.0


def _is_ranked(line: Line) -> bool:
    return any(value.mark in RANKED for value in line.values)


def _line(board: Board, label: str, cells: Sequence[Cell]) -> Line:
    records = [cell.record for cell in cells if cell.record]
    method = records[0].method if records else label
    values = [_value(board, cell, ipc) for cell, ipc in zip(cells, board.ipcs, strict=True)]
    is_variant = label.startswith(f"{method} #") and not any(v.mark in ("best", "tied") for v in values)
    name = label + " §" * (label in board.mixed)
    links = links_of(method)
    return Line(
        name, method, method_url(method), links.family, links.paper or "", is_variant,
        board.row_text(label), "; ".join(board.notes.get(label, {}).values()), values,
    )  # fmt: skip


def _control(board: Board, name: str, means: Mapping[int, float]) -> Line:
    """Return the row of a control that does not depend on a set, such as a classifier of the number of nodes."""
    metric = board.track.metric
    values = [
        Value(number([means[ipc]], metric), sort=means[ipc]) if ipc in means else Value()
        for ipc in board.ipcs
    ]
    return Line(f"{name} (no set)", "", "", "reference", "", False, "", "", values)


def _value(board: Board, cell: Cell, ipc: int) -> Value:
    published = " / ".join(published_text(p.number) for p in cell.published)
    source = "; ".join(f"{p.number.source}, {p.number.protocol}" for p in cell.published)
    record = cell.record
    if record is None:
        return Value(published=published, source=source)
    url = entry_url(record)
    if record.status != "done":
        return Value(record.status, "", record.status, "", url, record.reason or "", None, published, source)
    metric = board.track.metric
    s = record.summary()
    marks = ", ".join(_marks(board, record))
    tip = "; ".join(_tip(board, cell, record, published))
    std = "" if s.std is None else "all equal" if is_constant(s.std) else f"± {number([s.std], metric)}"
    return Value(number([s.mean], metric), std, cell.place or "", marks, url, tip, s.mean, published, source)


def _marks(board: Board, record: Record) -> Iterator[str]:
    size = board.sizes.get(record.key, 1.0)
    if size >= SMALLEST_EXCESS:
        yield size_text(size)
    origin = board.origins.get(record.key)
    if (
        origin and MARKS[origin.choice] and origin.choice != "test"
    ):  # `chosen_on_test` is a place and has a mark
        yield MARKS[origin.choice]


def _tip(board: Board, cell: Cell, record: Record, published: str) -> Iterator[str]:
    yield f"n={networks(record)}"
    if bounds := interval_text(record, board.track.metric):
        yield f"95 % interval {bounds}"
    if cell.place and cell.place not in RANKED:
        yield PLACE_MARKS[cell.place].meaning
    if published:
        yield f"published {published}"
