"""Plots of boards: accuracy against images per class, and the difference of each method from a reference."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from dd_bench.records.intervals import Difference
from dd_bench.records.record import Record

from ..core.boards import Board, boards
from ..core.differences import difference, is_paired
from ..core.entries import ACCURACY, CONTROL, HARD_LABEL_RANDOM, REFERENCE, is_reference
from ..core.selectors import MAIN_EVALUATORS
from .formatting import interval_bounds
from .markup import PLAIN
from .plot_style import BLACK, BLUE, GREEN, GREY, PAGE, VERMILION, Layout, Plot, styles

LINES = {
    CONTROL: (BLACK, "-"),
    HARD_LABEL_RANDOM: (BLACK, "-"),
    "kmeans": (GREY, "--"),
    REFERENCE: (GREEN, ":"),
}
"""Colour and line style of the rows that are drawn as lines."""
ON_TEST = " [T]"
"""Mark of a row whose hyper-parameters were chosen on test data, as in tables."""
SAMPLES = {"graph": "graphs", "node": "nodes"}
"""By evaluator: what a set consists of, if not of images."""
MIN_ROWS = 3
"""Minimum number of rows without random images and the whole training set; boards with fewer have no plots."""
SLOT = 0.8
"""Width of the part of an IPC in which its methods are drawn, if the distance of two IPCs is 1."""
WIDTH = 7.0
"""Width of a figure in inches, 672 CSS pixels."""


class Forest(NamedTuple):
    """Differences of rows from a reference, by IPC and label, and whether all or none are paired by seed."""

    reference: str
    differences: dict[int, dict[str, Difference]]
    pairing: str


def accuracy_plots(
    entries: Sequence[Record], min_rows: int = MIN_ROWS, reference: str | None = None
) -> Iterator[Plot]:
    """Yield the plots of each board with enough rows.

    They show the first row of each method. Rows `#2` and higher, which are variants, are in the tables of the board.

    Args:
        entries: records.
        min_rows: minimum number of rows without random images and the whole training set.
        reference: method whose difference from the others is shown; random images by default.
    """
    for board in boards(entries, []):
        rows = _rows(board)
        methods = [label for label in rows if not _is_line(label)]
        if board.track.compares_labels:
            continue
        if board.track.evaluator.partition("(")[0] not in MAIN_EVALUATORS or len(methods) < min_rows:
            continue
        shown = list({r.key: r for found in rows.values() for r in found.values()}.values())
        name = f"{board.track.folder}/{{}}--{board.track.name}"
        if len(board.ipcs) > 1:
            yield Plot(name.format("ipc"), shown, partial(_plot_ipc, board=board, rows=rows), list(rows))
        if (forest := _forest(rows, reference)).differences:
            yield Plot(
                name.format("forest"),
                shown,
                partial(_plot_forest, board=board, forest=forest),
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


def _plot_ipc(plt: Any, layout: Layout = PAGE, *, board: Board, rows: dict[str, dict[int, Record]]) -> Any:
    """Draw each method at its IPCs, side by side, and the reference rows as horizontal lines across each IPC."""
    scale, metric = _scale(board), board.track.metric
    figure, (axis,) = layout.panels(plt, 1, (WIDTH, 4.8), 2.8)
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
            # The markers of methods are beside the middle of their IPC. A sloped line would have another height there.
            edges = [(x - SLOT / 2, x + SLOT / 2) for x in where]
            for edge, low, high in zip(edges, *ends, strict=True):
                axis.fill_between(edge, low, high, color=colour, alpha=0.15, linewidth=0)
            axis.hlines(
                means, *zip(*edges, strict=True), color=colour, linestyle=line, label=PLAIN.escape(label)
            )
        else:
            colour, shape = style[label]
            shifts = [slots[ipc].index(label) - (len(slots[ipc]) - 1) / 2 for ipc in by_ipc]
            axis.errorbar(
                [x + SLOT * shift / len(marked) for x, shift in zip(where, shifts, strict=True)],
                means,
                [[m - low for m, low in zip(means, ends[0], strict=True)],
                 [high - m for m, high in zip(means, ends[1], strict=True)]],
                fmt=shape, color=colour, capsize=0.4 * layout.marker, markersize=layout.marker,
                label=PLAIN.escape(label),
            )  # fmt: skip
    axis.set_xticks(list(at.values()), [str(ipc) for ipc in at])
    axis.set_xlim(-0.5, len(at) - 0.5)
    for x in range(1, len(at)):
        axis.axvline(x - 0.5, color="0.9", zorder=0)
    axis.set_xlabel(f"{SAMPLES.get(board.track.evaluator, 'images')} per class")
    axis.set_ylabel(f"test {metric}, %" if metric == ACCURACY else metric)
    axis.grid(axis="y", color="0.9")
    axis.set_axisbelow(True)
    layout.title(axis, _title(board))
    layout.legend(figure, axis)
    return figure


def _forest(rows: dict[str, dict[int, Record]], reference: str | None) -> Forest:
    """Return the difference of each row from the reference.

    Two entries of one set each are paired by the seeds of their networks. Otherwise the interval is Welch's over the
    means of the sets, or the networks of a single set; see `core.differences`.
    """
    name = reference or (CONTROL if CONTROL in rows else HARD_LABEL_RANDOM)
    control = next((by_ipc for label, by_ipc in rows.items() if label.removesuffix(ON_TEST) == name), {})
    found: dict[int, dict[str, Difference]] = {}
    paired = set()
    for label, by_ipc in rows.items():
        if label.removesuffix(ON_TEST) == name or is_reference(label) or (not reference and _is_line(label)):
            continue
        for ipc in by_ipc.keys() & control.keys():
            a, b = by_ipc[ipc], control[ipc]
            if min(len(a.sample()), len(b.sample())) > 1:
                found.setdefault(ipc, {})[label] = difference(a, b)
                paired.add(is_paired(a, b))
    pairing = {(True,): ", paired by seed", (False, True): ", partly paired by seed"}
    return Forest(name, dict(sorted(found.items())), pairing.get(tuple(sorted(paired)), ""))


def _plot_forest(plt: Any, layout: Layout = PAGE, *, board: Board, forest: Forest) -> Any:
    """Draw one panel for each IPC. The rows have the order of the panel with most rows, and then of the others."""
    found = forest.differences
    panels = sorted(found.values(), key=len, reverse=True)
    order: list[str] = []
    for differences in panels:
        means = sorted((-one.mean, label) for label, one in differences.items() if label not in order)
        order += [label for _, label in means]
    order.reverse()
    sharing = {"sharex": True} if layout.narrow else {"sharey": True}
    height = 1.4 + 0.26 * len(order)
    figure, axes = layout.panels(plt, len(found), (WIDTH, height), 0.45 + 0.13 * len(order), **sharing)
    scale = _scale(board)
    for axis, (ipc, differences) in zip(axes, found.items(), strict=True):
        shown = [label for label in order if label in differences or not layout.narrow]
        axis.axvline(0, color=BLACK, linewidth=1)
        for label, one in differences.items():
            colour = BLUE if one.low > 0 else VERMILION if one.high < 0 else GREY
            fill = "white" if colour == GREY else colour
            ends = [[scale * (one.mean - one.low)], [scale * (one.high - one.mean)]]
            axis.errorbar(
                [scale * one.mean], [shown.index(label)], xerr=ends, fmt="o", color=colour, markerfacecolor=fill,
                markersize=0.8 * layout.marker, capsize=0.6 * layout.marker,
            )  # fmt: skip
        axis.set_yticks(range(len(shown)), [PLAIN.escape(label) for label in shown])
        axis.set_ylim(-0.6, len(shown) - 0.4)
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)
        axis.set_title(f"IPC {ipc}", fontsize="medium")
    unit = "percentage points" if board.track.metric == ACCURACY else board.track.metric
    text = f"difference from {forest.reference}, {unit}{chr(10) * layout.narrow or ' '}"
    figure.supxlabel(f"{text}(95 % intervals{forest.pairing})", fontsize="medium")
    layout.title(figure, _title(board))
    return figure
