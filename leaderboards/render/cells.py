"""Cells of a table of boards: methods as rows, and IPCs as columns, of one board or of several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from dd_bench.records.record import Record

from ..core.boards import Board, Cell
from ..core.budget import size_text
from ..core.hyperparameters import MARKS
from .cost import creation_seconds
from .formatting import interval_bounds, networks, number, printed
from .legend import SMALLEST_EXCESS, Highlight
from .markup import Markup
from .place_marks import PLACE_MARKS

COSTS = ("bytes", "seconds")
"""Columns that are not metrics: stored bytes of a set, and seconds to create it with teachers and experts."""
PUBLISHED = "published"
SIGNS_OF_SIZE = ("over_budget",)
SIGNS_OF_RANKS = ("untested", "too_few", *SIGNS_OF_SIZE)
"""Places that a cell shows by a sign. The best and the tied entries have a font, and `T` is a mark of the origin."""

Spread = Literal["std", "ci", "none"]
"""What follows `±`: the standard deviation, half the width of the 95 % interval, or nothing."""


@dataclass(frozen=True)
class Style:
    """What cells show. The defaults are those of the boards in `leaderboards/tables`."""

    decimals: int | None = None  # None: one for an accuracy in percent, four for other metrics
    spread: Spread = "std"
    highlight: Highlight = "ranks"
    counts: bool = True  # the number of networks in each cell
    published: bool = True
    metrics: Sequence[str] = ()  # of records, or of COSTS; empty: the main metric


class Column(NamedTuple):
    """One column of a table."""

    board: Board
    at: int  # index of its IPC
    content: str  # a metric, one of COSTS or PUBLISHED
    title: str

    def text(self, label: str, style: Style, markup: Markup) -> str:
        """Return the cell in the row of this label; '' if there is none."""
        cells = self.board.rows.get(label)
        if cells is None:
            return ""
        cell = cells[self.at]
        if self.content == PUBLISHED:
            return _published_text(cell, style, markup)
        return _measured_text(cell, self.board, self.content, style, markup)


def columns(board: Board, style: Style) -> list[Column]:
    """Return the columns of a board. Published numbers at an IPC have a column after it."""
    main = board.track.metric
    metrics = list(style.metrics) or [main]
    found: list[Column] = []
    for i, ipc in enumerate(board.ipcs):
        titles = [f"IPC {ipc}" + f", {metric}" * (metrics != [main]) for metric in metrics]
        found += [Column(board, i, metric, title) for metric, title in zip(metrics, titles, strict=True)]
        found += [Column(board, i, PUBLISHED, PUBLISHED)] * (style.published and board.has_published(i))
    return found


def table_rows(
    labels: Sequence[str], found: Sequence[Column], style: Style, markup: Markup
) -> list[list[str]]:
    """Return the rows of a table: the label, and one cell for each column. All texts are escaped.

    The label of a method with several rows contains the settings that distinguish them, except in LaTeX.
    """
    boards = {column.board.track: column.board for column in found}.values()
    mark = markup.mark.format(markup.escape("§"))

    def name(label: str) -> str:
        settings = dict.fromkeys(board.settings[label] for board in boards if label in board.settings)
        text = markup.settings.format(markup.escape("; ".join(settings))) if settings else ""
        return markup.escape(label) + text + mark * any(label in board.mixed for board in boards)

    return [[name(label), *(c.text(label, style, markup) for c in found)] for label in labels]


def _measured_text(cell: Cell, board: Board, content: str, style: Style, markup: Markup) -> str:
    record = cell.record
    if record is None:
        return ""
    if cell.reason is not None:
        return markup.escape("–") + markup.mark.format(cell.reason)
    if content in COSTS:
        text = f"{sum(record.stored_bytes.values()):,}" if record.stored_bytes else ""
        return text if content == "bytes" else f"{creation_seconds(record):,.1f}"
    if content not in record.metrics:
        return ""
    text = markup.escape(_value(record, content, style))
    if content != record.main_metric:
        return text
    place = cell.place
    if style.highlight != "none":
        text = (markup.best if place == "best" else "{}").format(text)
    if style.highlight == "ranks":
        text = (markup.tied if place == "tied" else "{}").format(text)
    text += markup.count.format(markup.escape(f"n={networks(record)}")) * style.counts
    signs = SIGNS_OF_RANKS if style.highlight == "ranks" else SIGNS_OF_SIZE
    marks = [PLACE_MARKS[place].sign] if place and place in signs else []
    size = board.sizes.get(record.key, 0)
    marks += [size_text(size)] * (size >= SMALLEST_EXCESS)
    marks += [MARKS[origin.choice]] if (origin := board.origins.get(record.key)) else []
    joined = ", ".join(filter(None, marks))
    return text + (markup.mark.format(markup.escape(joined)) if joined else "")


def _value(record: Record, metric: str, style: Style) -> str:
    """Return e.g. `60.1 ± 0.4`: the mean of a metric and its spread, if it has one."""
    summary = record.summary(metric)
    spread = summary.std if style.spread == "std" else None
    if style.spread == "ci" and (bounds := interval_bounds(record, metric)):
        spread = max(summary.mean - bounds[0], bounds[1] - summary.mean)  # an end may be clipped to [0, 1]
    return number([summary.mean, spread], record.main_metric, style.decimals)


def _published_text(cell: Cell, style: Style, markup: Markup) -> str:
    marks = [p.letter + "†" * (not p.number.verified) for p in cell.published]
    pairs = zip(cell.published, marks, strict=True)
    return " / ".join(
        markup.escape(printed(p.number, style.spread != "none")) + markup.mark.format(markup.escape(mark))
        for p, mark in pairs
    )
