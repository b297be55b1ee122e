"""Plots of boards: accuracy against images per class, and the difference of each method from random images."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from dd_bench.records.intervals import Difference
from dd_bench.records.record import Record

from ..core.boards import Board, boards
from ..core.differences import difference
from ..core.entries import ACCURACY, CONTROL, HARD_LABEL_RANDOM, REFERENCE, is_reference
from ..core.selectors import MAIN_EVALUATORS
from .formatting import interval_bounds
from .markup import PLAIN
from .plot_style import BLACK, BLUE, GREEN, GREY, VERMILION, Plot, styles

LINES = {
    CONTROL: (BLACK, "-"),
    HARD_LABEL_RANDOM: (BLACK, "-"),
    "kmeans": (GREY, "--"),
    REFERENCE: (GREEN, ":"),
}
"""Colour and line style of the rows that are drawn as lines."""
ON_TEST = " [T]"
"""Mark of a row whose hyper-parameters were chosen on test data, as in tables."""
MIN_ROWS = 3
"""Minimum number of rows without random images and the whole training set; boards with fewer have no plots."""
WIDTH = 7.0
"""Width of a figure in inches, 672 CSS pixels."""


def accuracy_plots(entries: Sequence[Record]) -> Iterator[Plot]:
    """Yield the plots of each board with enough rows.

    They show the first row of each method. Rows `#2` and higher, which are variants, are in the tables of the board.
    """
    for board in boards(entries, []):
        rows = _rows(board)
        methods = [label for label in rows if not _is_line(label)]
        if board.track.evaluator.partition("(")[0] not in MAIN_EVALUATORS or len(methods) < MIN_ROWS:
            continue
        shown = list({r.key: r for found in rows.values() for r in found.values()}.values())
        name = f"{board.track.folder}/{{}}--{board.track.name}"
        if len(board.ipcs) > 1:
            yield Plot(name.format("ipc"), shown, partial(_plot_ipc, board=board, rows=rows), list(rows))
        if differences := _differences(rows):
            yield Plot(
                name.format("forest"),
                shown,
                partial(_plot_forest, board=board, found=differences),
                list(rows),
            )


def _rows(board: Board) -> dict[str, dict[int, Record]]:
    """Return the measured cells of the first row of each method, by label and IPC.

    Labels of methods whose hyper-parameters were chosen on test data have the mark `ON_TEST`.
    """
    found: dict[str, dict[int, Record]] = {}
    for label, cells in board.rows.items():
        by_ipc = {
            ipc: cell.record
            for ipc, cell in zip(board.ipcs, cells, strict=True)
            if cell.record is not None and cell.record.status == "done"
        }
        if by_ipc and (
            label in (HARD_LABEL_RANDOM, next(iter(by_ipc.values())).method) or is_reference(label)
        ):
            on_test = any(board.places.get(r.key) == "chosen_on_test" for r in by_ipc.values())
            found[label + ON_TEST * on_test] = by_ipc
    return found


def _is_line(label: str) -> bool:
    return label in (CONTROL, HARD_LABEL_RANDOM) or is_reference(label)


def _scale(board: Board) -> float:
    return 100 if board.track.metric == ACCURACY else 1


def _title(board: Board) -> str:
    track = board.track
    text = f"{track.dataset}, {track.protocol} v{track.version}, {track.label_mode} labels, {track.model}"
    return PLAIN.escape(textwrap.fill(text, 85))


def _plot_ipc(plt: Any, board: Board, rows: dict[str, dict[int, Record]]) -> Any:
    """Draw each method at its IPCs, side by side, and the reference rows as lines."""
    scale, metric = _scale(board), board.track.metric
    figure, axis = plt.subplots(figsize=(WIDTH, 4.8), layout="constrained")
    at = {ipc: i for i, ipc in enumerate(board.ipcs)}
    marked = [label for label in rows if label not in LINES and not is_reference(label)]
    style = dict(zip(marked, styles(), strict=False))
    slots = {ipc: [label for label in marked if ipc in rows[label]] for ipc in board.ipcs}
    for label, by_ipc in rows.items():
        means = [scale * r.summary().mean for r in by_ipc.values()]
        bounds = [interval_bounds(r, metric) or (r.summary().mean,) * 2 for r in by_ipc.values()]
        ends = [[scale * low for low, _ in bounds], [scale * high for _, high in bounds]]
        where = [at[ipc] for ipc in by_ipc]
        if is_reference(label):
            colour, line = LINES[REFERENCE]
            axis.axhspan(ends[0][0], ends[1][0], color=colour, alpha=0.15, linewidth=0)
            axis.axhline(means[0], color=colour, linestyle=line, label=PLAIN.escape(label))
        elif label in LINES:
            colour, line = LINES[label]
            axis.fill_between(where, *ends, color=colour, alpha=0.15, linewidth=0)
            axis.plot(where, means, color=colour, linestyle=line, label=PLAIN.escape(label))
        else:
            colour, shape = style[label]
            shifts = [slots[ipc].index(label) - (len(slots[ipc]) - 1) / 2 for ipc in by_ipc]
            axis.errorbar(
                [x + 0.8 * shift / len(marked) for x, shift in zip(where, shifts, strict=True)],
                means,
                [[m - low for m, low in zip(means, ends[0], strict=True)],
                 [high - m for m, high in zip(means, ends[1], strict=True)]],
                fmt=shape, color=colour, capsize=2, markersize=5, label=PLAIN.escape(label),
            )  # fmt: skip
    axis.set_xticks(list(at.values()), [str(ipc) for ipc in at])
    axis.set_xlim(-0.5, len(at) - 0.5)
    for x in range(1, len(at)):
        axis.axvline(x - 0.5, color="0.9", zorder=0)
    axis.set_xlabel("images per class")
    axis.set_ylabel(f"test {metric}, %" if metric == ACCURACY else metric)
    axis.grid(axis="y", color="0.9")
    axis.set_axisbelow(True)
    axis.set_title(_title(board), fontsize="medium")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def _differences(rows: dict[str, dict[int, Record]]) -> dict[int, dict[str, Difference]]:
    """Return the difference of each row from random images, by IPC and label."""
    control = rows.get(CONTROL) or rows.get(HARD_LABEL_RANDOM) or {}
    found: dict[int, dict[str, Difference]] = {}
    for label, by_ipc in rows.items():
        for ipc in by_ipc.keys() & control.keys() if not _is_line(label) else ():
            records = by_ipc[ipc], control[ipc]
            if min(len(r.sample()) for r in records) > 1:
                found.setdefault(ipc, {})[label] = difference(*records)
    return dict(sorted(found.items()))


def _plot_forest(plt: Any, board: Board, found: dict[int, dict[str, Difference]]) -> Any:
    """Draw one panel for each IPC. The rows have the order of the panel with most rows, and then of the others."""
    panels = sorted(found.values(), key=len, reverse=True)
    order: list[str] = []
    for differences in panels:
        means = sorted((-one.mean, label) for label, one in differences.items() if label not in order)
        order += [label for _, label in means]
    order.reverse()
    figure, axes = plt.subplots(
        1,
        len(found),
        figsize=(WIDTH, 1.4 + 0.26 * len(order)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    scale = _scale(board)
    for axis, (ipc, differences) in zip(axes[0], found.items(), strict=True):
        axis.axvline(0, color=BLACK, linewidth=1)
        for label, one in differences.items():
            colour = BLUE if one.low > 0 else VERMILION if one.high < 0 else GREY
            fill = "white" if colour == GREY else colour
            ends = [[scale * (one.mean - one.low)], [scale * (one.high - one.mean)]]
            axis.errorbar(
                [scale * one.mean], [order.index(label)], xerr=ends, fmt="o", color=colour, markerfacecolor=fill,
                markersize=4, capsize=3,
            )  # fmt: skip
        axis.set_yticks(range(len(order)), [PLAIN.escape(label) for label in order])
        axis.set_ylim(-0.6, len(order) - 0.4)
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)
        axis.set_title(f"IPC {ipc}", fontsize="medium")
    unit = "percentage points" if board.track.metric == ACCURACY else board.track.metric
    figure.supxlabel(f"difference from random, {unit} (95 % intervals)", fontsize="medium")
    figure.suptitle(_title(board), fontsize="medium")
    return figure
