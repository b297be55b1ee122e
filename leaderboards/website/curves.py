"""Two small SVG plots of a board: value against IPC, and value against stored bits.

They are part of the page, follow its colours, and need no script. A curve is one method: its family gives the colour
and the marker, as in the matrix. Random and the whole training set are lines to compare with. Entries that are not
ranked have hollow markers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ..core.bits import stored_bits
from ..core.boards import Board
from ..core.entries import ACCURACY, CONTROL, HARD_LABEL_RANDOM, REFERENCE
from ..core.ranking import RANKED
from .matrix import Line, Matrix

WIDTH, HEIGHT = 340, 260
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 42
"""Margins in units of the view box. The text has 13.5 units, and a plot is at least 304 pixels wide: 12 pixels."""
LINE = 14
"""Distance of two lines of text."""


class Curve(NamedTuple):
    """A line with markers."""

    name: str  # of the row
    style: str  # CSS classes
    points: str  # of an SVG polyline
    tip: str


class Tick(NamedTuple):
    """A mark of an axis."""

    at: float
    text: str


class Label(NamedTuple):
    """A text that ends or starts at a place in the view box."""

    x: float
    y: float
    text: str


class Series(NamedTuple):
    """The values of one curve or of one marker."""

    name: str  # of its row in the matrix, which highlights it
    style: str
    tip: str  # before its values
    points: list[tuple[float, float]]
    end: str = ""  # text at its last point
    start: str = ""  # text at its first point


class Plot(NamedTuple):
    """One plot for a template."""

    title: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    curves: list[Curve]
    levels: list[float]  # horizontal lines: the whole training set
    right: float  # end of the grid
    ends: list[Tick]  # texts to the right of the grid, at the ends of curves and lines
    starts: list[Label]  # texts to the right of the first points of curves


def plots(one: Matrix) -> list[Plot]:
    """Return the plots of a matrix that have something to compare: at least two IPCs, and at least two sizes.

    Coresets from training dynamics are left out: they are so many that no curve could be followed.
    """
    board, found = one.board, []
    sizes = {r.key: float(bits) for r in board.records if (bits := stored_bits(r))}
    lines = [
        line
        for line in one.lines
        if line.method not in ("", REFERENCE) and line.family != "coreset" and not line.is_variant
    ]
    by_ipc = [_series(line, _values(one, line)) for line in lines]
    by_bits = [_series(line, _bits(board, line, sizes)) for line in lines]
    metric, levels = metric_label(board), _whole(one)
    if len(one.ipcs) > 1:
        ticks = [(float(ipc), str(ipc)) for ipc in one.ipcs]
        title = f"{metric} against samples per class"
        found.append(draw(title, "samples per class (IPC)", metric, by_ipc, ticks, levels))
    xs = [x for series in by_bits for x, _ in series.points]
    if len(set(xs)) > 1:
        ticks = list(_decades(min(xs), max(xs)))
        title = f"{metric} against stored bits"
        found.append(draw(title, "stored bits, with labels", metric, by_bits, ticks, levels))
    return found


def metric_label(board: Board) -> str:
    """Return the metric of a board with its unit."""
    return board.track.metric + (", %" if board.track.metric == ACCURACY else "")


def scale(board: Board) -> float:
    """Return the factor of values: 100 for an accuracy, which is in percent."""
    return 100.0 if board.track.metric == ACCURACY else 1.0


def _series(line: Line, points: Iterable[tuple[float, float]]) -> Series:
    style = _style(line)
    start = line.label.removesuffix(" §") if style == "reference" else ""
    return Series(line.label, style, f"{line.label} ({line.family})", list(points), start=start)


def _values(one: Matrix, line: Line) -> Iterator[tuple[float, float]]:
    for ipc, value in zip(one.ipcs, line.values, strict=True):
        if value.sort is not None:
            yield float(ipc), scale(one.board) * value.sort


def _bits(board: Board, line: Line, sizes: dict[str, float]) -> Iterator[tuple[float, float]]:
    for cell in board.rows[line.label.removesuffix(" §")]:
        if cell.record and cell.record.status == "done" and cell.record.key in sizes:
            yield sizes[cell.record.key], scale(board) * cell.record.summary().mean


def draw(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    ticks: Sequence[tuple[float, str]],
    levels: Sequence[tuple[str, float]] = (),
    *,
    log: bool = True,
) -> Plot:
    """Return a plot of several series, of which at least one has a point.

    Args:
        title: above the plot.
        x_label: below the axis.
        y_label: unit of the values.
        series: in the order of drawing.
        ticks: places and texts of the x axis.
        levels: labels and values of horizontal lines.
        log: whether the x axis is logarithmic.
    """
    drawn = [one for one in series if one.points]
    ys = [y for one in drawn for _, y in one.points] + [y for _, y in levels]
    y_ticks = _linear(min(ys), max(ys))
    xs = [x for one in drawn for x, _ in one.points] + [x for x, _ in ticks]
    x_range, y_range = (min(xs), max(xs)), (min(*ys, y_ticks[0]), max(*ys, y_ticks[-1]))

    texts = [one.end for one in drawn if one.end] + [label for label, _ in levels]
    right = 6 + 8 * max(map(len, texts)) if texts else RIGHT

    def share(x: float) -> float:
        if log:
            return math.log(x / x_range[0]) / (math.log(x_range[1] / x_range[0]) or 1)
        return (x - x_range[0]) / ((x_range[1] - x_range[0]) or 1)

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + 8 + share(x) * (WIDTH - LEFT - right - 16)
        up = (y - y_range[0]) / ((y_range[1] - y_range[0]) or 1)
        return round(across, 1), round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1)

    starts = [Label(*at(*min(one.points)), one.start) for one in drawn if one.start]
    named = [(at(*max(one.points))[1], one.end) for one in drawn if one.end]
    named += [(at(x_range[0], y)[1], label) for label, y in levels]
    digits = max(0, -math.floor(math.log10(y_ticks[1] - y_ticks[0]))) if len(y_ticks) > 1 else 1
    return Plot(
        title,
        x_label,
        y_label,
        [Tick(at(x, y_range[0])[0], text) for x, text in ticks],
        [Tick(at(x_range[0], y)[1], f"{y:.{digits}f}") for y in y_ticks],
        [
            Curve(
                one.name,
                one.style,
                " ".join(f"{x:g},{y:g}" for x, y in (at(x, y) for x, y in sorted(one.points))),
                f"{one.tip}: " + ", ".join(f"{y:.{digits + 1}f}" for _, y in sorted(one.points)),
            )
            for one in drawn
        ],
        [at(x_range[0], y)[1] for _, y in levels],
        WIDTH - right,
        _apart(named),
        [label._replace(x=label.x + 8, y=label.y + 5) for label in starts if label.x < WIDTH / 2],
    )


def _apart(named: Sequence[tuple[float, str]]) -> list[Tick]:
    """Return texts at their heights, moved so that none overlaps another one or the x axis."""
    places: list[float] = []
    named = sorted(named)
    for y, _ in named:
        places.append(max(y + 4, places[-1] + LINE if places else TOP))
    lowest = float(HEIGHT - BOTTOM)
    for i in reversed(range(len(places))):
        places[i] = min(places[i], lowest)
        lowest = places[i] - LINE
    return [Tick(round(y, 1), text) for y, (_, text) in zip(places, named, strict=True)]


def _whole(one: Matrix) -> list[tuple[str, float]]:
    """Return the rows of the whole training set with their values, which are the same at every IPC."""
    lines = [line for line in one.lines if line.method == REFERENCE and line.values[0].sort is not None]
    return [(line.label, scale(one.board) * (line.values[0].sort or 0.0)) for line in lines]


def _style(line: Line) -> str:
    if line.label == HARD_LABEL_RANDOM or line.method == CONTROL:
        return "reference"
    ranked = any(value.mark in RANKED for value in line.values)
    return line.family if ranked else f"{line.family} hollow"


def _linear(low: float, high: float) -> list[float]:
    """Return about five round numbers that cover a range."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(power * m for m in (1, 2, 5, 10) if span / (power * m) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * i for i in range(first, last + 1)]


def _decades(low: float, high: float) -> Iterator[tuple[float, str]]:
    """Yield the powers of ten around a range of bits, with their texts: `10 k`, `1 M`."""
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        prefix = power // 3 * 3
        unit = {0: "", 3: " k", 6: " M", 9: " G", 12: " T"}.get(prefix, f"e{prefix}")
        yield 10.0**power, f"{10 ** (power - prefix)}{unit}"
