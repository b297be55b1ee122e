"""Two small SVG plots of a board: value against IPC, and value against stored bits.

They are part of the page, follow its colours, and need no script. A curve is one method: its family gives the colour
and the marker, as in the matrix. Random and the whole training set are lines to compare with. Entries that are not
ranked have hollow markers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..core.bits import stored_bits
from ..core.boards import Board
from ..core.entries import ACCURACY, CONTROL, HARD_LABEL_RANDOM, REFERENCE
from .matrix import Line, Matrix

WIDTH, HEIGHT = 340, 260
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 42
"""Margins in units of the view box. The text has 12.5 units, and a unit is a pixel on a phone."""


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


class Plot(NamedTuple):
    """One plot for a template."""

    title: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    curves: list[Curve]
    levels: list[Tick]  # horizontal lines: the whole training set


def plots(one: Matrix) -> list[Plot]:
    """Return the plots of a matrix that have something to compare: at least two IPCs, and at least two sizes."""
    board, found = one.board, []
    sizes = {r.key: float(bits) for r in board.records if (bits := stored_bits(r))}
    by_ipc = [(line, [(float(ipc), y, "") for ipc, y in _values(one, line)]) for line in _drawn(one)]
    by_bits = [(line, list(_bits(board, line, sizes))) for line in _drawn(one) if line.method != REFERENCE]
    metric = board.track.metric + (", %" if board.track.metric == ACCURACY else "")
    if len(one.ipcs) > 1:
        ticks = [(float(ipc), str(ipc)) for ipc in one.ipcs]
        found.append(
            _plot(one, f"{metric} against images per class", "samples per class (IPC)", metric, by_ipc, ticks)
        )
    xs = [x for _, points in by_bits for x, _, _ in points]
    if len(set(xs)) > 1:
        ticks = list(_decades(min(xs), max(xs)))
        found.append(
            _plot(one, f"{metric} against stored bits", "stored bits, with labels", metric, by_bits, ticks)
        )
    return found


def _drawn(one: Matrix) -> Iterator[Line]:
    return (line for line in one.lines if line.method and not line.is_variant)


def _scale(board: Board) -> float:
    return 100.0 if board.track.metric == ACCURACY else 1.0


def _values(one: Matrix, line: Line) -> Iterator[tuple[int, float]]:
    for ipc, value in zip(one.ipcs, line.values, strict=True):
        if value.sort is not None:
            yield ipc, _scale(one.board) * value.sort


def _bits(board: Board, line: Line, sizes: dict[str, float]) -> Iterator[tuple[float, float, str]]:
    for cell in board.rows[line.label.removesuffix(" §")]:
        if cell.record and cell.record.status == "done" and cell.record.key in sizes:
            yield sizes[cell.record.key], _scale(board) * cell.record.summary().mean, f"IPC {cell.record.ipc}"


def _plot(
    one: Matrix,
    title: str,
    x_label: str,
    y_label: str,
    rows: Sequence[tuple[Line, list[tuple[float, float, str]]]],
    ticks: Sequence[tuple[float, str]],
) -> Plot:
    whole = _whole(one)
    curves = [(line, points) for line, points in rows if points and line.method != REFERENCE]
    ys = [y for _, points in curves for _, y, _ in points] + [y for _, y in whole]
    y_ticks = _linear(min(ys), max(ys))
    xs = [x for _, points in curves for x, _, _ in points] + [x for x, _ in ticks]
    x_range, y_range = (min(xs), max(xs)), (min(*ys, y_ticks[0]), max(*ys, y_ticks[-1]))

    def at(x: float, y: float) -> tuple[float, float]:
        share = math.log(x / x_range[0]) / (math.log(x_range[1] / x_range[0]) or 1)
        across = LEFT + 8 + share * (WIDTH - LEFT - RIGHT - 16)
        up = (y - y_range[0]) / ((y_range[1] - y_range[0]) or 1)
        return round(across, 1), round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1)

    digits = max(0, -math.floor(math.log10(y_ticks[1] - y_ticks[0]))) if len(y_ticks) > 1 else 1
    return Plot(
        title,
        x_label,
        y_label,
        [Tick(at(x, y_range[0])[0], text) for x, text in ticks],
        [Tick(at(x_range[0], y)[1], f"{y:.{digits}f}") for y in y_ticks],
        [
            Curve(
                line.label,
                _style(line),
                " ".join(f"{x:g},{y:g}" for x, y in (at(x, y) for x, y, _ in sorted(points))),
                f"{line.label} ({line.family}): "
                + ", ".join(f"{y:.{digits + 1}f}" for _, y, _ in sorted(points)),
            )
            for line, points in curves
        ],
        [Tick(at(x_range[0], y)[1], label) for label, y in whole],
    )


def _whole(one: Matrix) -> list[tuple[str, float]]:
    """Return the rows of the whole training set with their values, which are the same at every IPC."""
    lines = [line for line in one.lines if line.method == REFERENCE and line.values[0].sort is not None]
    return [(line.label, _scale(one.board) * (line.values[0].sort or 0.0)) for line in lines]


def _style(line: Line) -> str:
    if line.label == HARD_LABEL_RANDOM or line.method == CONTROL:
        return "reference"
    ranked = any(value.mark in ("best", "tied", "behind", "too_few") for value in line.values)
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
