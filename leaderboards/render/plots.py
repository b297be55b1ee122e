"""Plots of boards as SVG, PDF or PNG: accuracy against IPC, bytes, seconds and bytes of labels, differences, and more.

The output is deterministic for a given version of matplotlib, which is an optional dependency. A file contains the
digests of its entries and the version of matplotlib.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from dd_bench.records.record import Record
from dd_bench.runtime.files import content_key, write_atomic

from ..core.board_selection import BoardFilter, narrowed, select_boards, unknown_name
from ..core.boards import boards
from ..core.entries import ACCURACY, LABEL_COMPARISON, Track, load_entries
from .accuracy_plots import MIN_ROWS, accuracy_plots
from .bits_plots import bits_plots
from .continual import group_by_steps, step_metrics
from .cost import Point, points, ranked_front
from .formatting import with_marks
from .heat_maps import heat_maps
from .label_bits import LabelPoint, curves, front, label_points, method_order
from .markup import PLAIN
from .plot_style import PAGE, Layout, Plot, styles


@dataclass(frozen=True)
class Selection:
    """Which plots to draw. By default, all that `leaderboards/plots` has."""

    boards: BoardFilter = field(default_factory=BoardFilter)
    methods: Sequence[str] = ()
    ipcs: Sequence[int] = ()
    kinds: Sequence[str] = ()  # of KINDS
    reference: str | None = None  # method from which forest plots show differences; default: random images

    def plots(self, entries: Sequence[Record]) -> Iterator[Plot]:
        """Yield the selected plots. If boards or methods are selected, boards with few methods have plots, too.

        Raises:
            ValueError: a name is unknown.
        """
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(unknown_name("kind", kind, KINDS))
        if self.reference and self.reference not in (known := sorted({r.method for r in entries})):
            raise ValueError(unknown_name("reference", self.reference, known))
        chosen, tracks, few = entries, None, {}
        if self.boards or self.methods or self.ipcs:
            # a kind can belong to one evaluator, as cross_arch does, and draws no boards of others
            found = select_boards(boards(entries, []), self.boards, all_evaluators=bool(self.kinds))
            parts = narrowed(found, self.methods, self.ipcs, variants=True)
            shown = {c.record.key for b in parts for row in b.rows.values() for c in row if c.record}
            chosen = [r for r in entries if r.key in shown]
            tracks, few = {board.track for board in parts}, {"min_rows": 1}
        for plot in plots(chosen, reference=self.reference, **few):
            on_board = tracks is None or any(Track.of(r) in tracks for r in plot.records)
            if on_board and (not self.kinds or plot.kind in self.kinds):
                yield plot


KINDS = ("ipc", "forest", "cost", "bits", "continual", "label_bits", "cross_arch", "networks")
FORMATS = ("svg", "pdf", "png")


def draw(
    entries_dir: Path,
    out_dir: Path,
    changed_only: bool = False,
    selection: Selection | None = None,
    formats: Sequence[str] = ("svg",),
    layout: Layout = PAGE,
) -> list[Path]:
    """Write plots as `<name>.<format>` in a folder, and return the paths.

    Args:
        entries_dir: folder of entries or records.
        out_dir: output folder.
        changed_only: do not write SVG files again that have the same description.
        selection: which plots; all by default.
        formats: of `FORMATS`.
        layout: for a web page, or for one or both columns of a paper.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: an entry is invalid, see `load_entries`, or the selection has an unknown name.
    """
    found = (selection or Selection()).plots(load_entries(entries_dir))
    try:
        matplotlib = import_module("matplotlib")
        matplotlib.use("Agg")
        plt = import_module("matplotlib.pyplot")
    except ImportError as error:
        raise ImportError("plots require matplotlib. Install it: pip install 'dd-bench[plots]'") from error
    written = []
    parameters = {"svg.hashsalt": "dd_bench", "font.size": layout.font, "svg.fonttype": "none", **layout.rc}
    with matplotlib.rc_context(parameters):
        for plot in found:
            paths = [out_dir / f"{plot.name}.{form}" for form in formats]
            if changed_only and all(described(path) == plot.description for path in paths):
                continue
            figure = plot.figure(plt, layout)
            for path, form in zip(paths, formats, strict=True):
                write_atomic(path, _rendered(figure, form, plot.description, layout))
            plt.close(figure)
            written += paths
    return written


def _rendered(figure: Any, form: str, description: str, layout: Layout) -> bytes:
    """Return the content of a file, without a date. A figure of a paper is not cropped, so it has its exact width."""
    metadata = {
        "svg": {"Date": None, "Description": description},
        "pdf": {"CreationDate": None, "Subject": description},
        "png": {"Description": description},
    }[form]
    cropped = {"bbox_inches": "tight"} if layout.width is None else {}
    content = io.BytesIO()
    figure.savefig(content, format=form, metadata=metadata, dpi=300 if form == "png" else "figure", **cropped)
    return content.getvalue()


def described(path: Path) -> str | None:
    """Return the description in the SVG file of a plot; None if there is no such file or description."""
    found = re.search("<dc:description>(.*?)</dc:description>", path.read_text()) if path.exists() else None
    return html.unescape(found[1]) if found else None


def plots(
    entries: Sequence[Record], min_rows: int = MIN_ROWS, reference: str | None = None
) -> Iterator[Plot]:
    """Yield the plots of all boards.

    Their names are `<dataset>/cost--<board>`, `<dataset>/bits--<board>`, `<dataset>/continual--<board>-<steps>`,
    `<dataset>/ipc--<board>`, `<dataset>/forest--<board>`, `<dataset>/label_bits--labels-400` or
    `label_bits--<digest of the group>`, and those of
    `heat_maps`.

    Args:
        entries: records.
        min_rows: minimum number of methods on a board, and of points in a plot of cost.
        reference: see `accuracy_plots`.
    """
    yield from _cost_plots(entries, min_rows)
    yield from bits_plots(entries)
    yield from _continual_plots(entries)
    yield from _label_plots(entries)
    yield from accuracy_plots(entries, min_rows, reference)
    yield from heat_maps(entries)


def _cost_plots(entries: Sequence[Record], min_points: int) -> Iterator[Plot]:
    for track, found in points(entries).items():
        if len(found) >= min_points and not track.compares_labels:
            figure = partial(_plot_cost, found=found, metric=track.metric)
            yield Plot(f"{track.folder}/cost--{track.name}", [p.record for p in found], figure)


def _plot_cost(plt: Any, layout: Layout = PAGE, *, found: Sequence[Point], metric: str) -> Any:
    room = 0.08 * max(len(p.record.method) for p in found)  # inches, for the legend
    figure, axes = layout.panels(plt, 2, (7.5 + room, 3.6), 2.1, sharey=True)
    seconds = "seconds to create it, including teachers and experts"
    scale = 100 if metric == ACCURACY else 1
    marks = dict(zip(dict.fromkeys(p.record.method for p in found), styles(), strict=False))
    for axis, name, costs in (
        (axes[0], "bits of the set", [float(p.bits) for p in found]),
        (axes[1], seconds, [p.creation for p in found]),
    ):
        on_front = ranked_front([p.record for p in found], costs)
        costs = [max(cost, 0.01) for cost in costs]  # the axis is logarithmic
        steps = sorted((c, p.value * scale) for c, p, on in zip(costs, found, on_front, strict=True) if on)
        axis.plot([c for c, _ in steps], [v for _, v in steps], color="0.7", drawstyle="steps-post", zorder=0)
        for method, (
            colour,
            shape,
        ) in marks.items():  # variants of a method share a marker; cost.md lists them
            mine = [(c, p) for c, p in zip(costs, found, strict=True) if p.record.method == method]
            axis.errorbar(
                [c for c, _ in mine],
                [p.value * scale for _, p in mine],
                [(p.record.summary().std or 0) * scale for _, p in mine],
                fmt=shape,
                color=colour,
                label=PLAIN.escape(with_marks(method, [p.record for _, p in mine])),
                capsize=0.4 * layout.marker,
                markersize=layout.marker,
            )
        axis.set_xscale("log")
        axis.set_xlabel(name)
    for axis in axes if layout.narrow else axes[:1]:
        axis.set_ylabel(f"{metric}, %" if metric == ACCURACY else metric)
    layout.legend(figure, axes[1])
    return figure


def _continual_plots(entries: Sequence[Record]) -> Iterator[Plot]:
    for (track, steps), found in group_by_steps(entries).items():
        name = f"{track.folder}/continual--{track.name}-{steps}"
        yield Plot(name, found, partial(_plot_continual, found=found))


def _plot_continual(plt: Any, layout: Layout = PAGE, *, found: Sequence[Record]) -> Any:
    room = 0.08 * max(len(r.method) + len(", IPC 10") for r in found)
    figure, (axis,) = layout.panels(plt, 1, (5 + room, 3.6), 2.6)
    for record, (colour, shape) in zip(
        sorted(found, key=lambda r: (r.ipc, r.method)), styles(), strict=False
    ):
        sums = [record.summary(metric) for metric in step_metrics(record)]
        at = list(range(1, len(sums) + 1))
        below = [0.0 if s.ci_low is None else 100 * (s.mean - s.ci_low) for s in sums]
        above = [0.0 if s.ci_high is None else 100 * (s.ci_high - s.mean) for s in sums]
        label = PLAIN.escape(f"{record.method}, IPC {record.ipc}")
        axis.errorbar(
            at,
            [100 * s.mean for s in sums],
            [below, above],
            fmt=f"{shape}-",
            color=colour,
            label=label,
            capsize=0.4 * layout.marker,
            markersize=layout.marker if layout.width else None,
        )
    axis.set_xticks(at)
    axis.set_xlabel("step")
    axis.set_ylabel("accuracy on the classes seen so far, %\n(95 % intervals)")
    layout.legend(figure, axis)
    return figure


def _label_plots(entries: Sequence[Record]) -> Iterator[Plot]:
    """Yield a plot for each table of `label_bits`. The largest comparison of a dataset has a name without a digest."""
    used = set()
    for title, found in sorted(label_points(entries), key=lambda group: -len(group[1])):
        tracks = [Track.of(p.record) for p in found]
        name = f"{tracks[0].folder}/label_bits--{LABEL_COMPARISON}"
        if name in used or not any(track.compares_labels for track in tracks):
            name = f"{tracks[0].folder}/label_bits--{content_key(title)[:8]}"
        used.add(name)
        yield Plot(name, [p.record for p in found], partial(_plot_labels, found=found))


def _plot_labels(plt: Any, layout: Layout = PAGE, *, found: Sequence[LabelPoint]) -> Any:
    """Draw one panel for each IPC: a point for each kind of labels, at the bits of the labels or of their teachers.

    The line of a method connects its Pareto front. Points of online labels, which need the teachers, are white inside.
    Dashed lines are online labels of teachers of unknown size.
    """
    by_curve = curves(found)
    ipcs = sorted({ipc for ipc, _ in by_curve})
    methods = sorted({p.method for p in found}, key=method_order)
    style = dict(zip(methods, styles(), strict=False))
    room = 0.08 * max(map(len, methods))
    figure, axes = layout.panels(plt, len(ipcs), (3.7 * len(ipcs) + 1.3 + room, 3.6), 2.4)
    for axis, ipc in zip(axes, ipcs, strict=True):
        for method in (m for m in methods if (ipc, m) in by_curve):
            (known, unknown), (colour, shape) = by_curve[ipc, method], style[method]
            for is_online in (False, True):
                drawn = [p for p in known if p.is_online == is_online]
                axis.errorbar(
                    [p.cost for p in drawn],
                    [100 * p.record.summary().mean for p in drawn],
                    [100 * (p.record.summary().std or 0) for p in drawn],
                    fmt=shape, color=colour, label=None if is_online else PLAIN.escape(method), alpha=0.6,
                    elinewidth=0.6, markersize=0.7 * layout.marker,
                    markerfacecolor="white" if is_online else colour,
                )  # fmt: skip
            best = front(known)
            axis.plot(
                [p.cost for p in best],
                [100 * p.record.summary().mean for p in best],
                color=colour,
                drawstyle="steps-post",
                linewidth=1,
            )
            for p in unknown:
                axis.axhline(
                    100 * p.record.summary().mean, color=colour, linestyle="--", linewidth=0.6, zorder=0
                )
        sizes = [p.cost for p in found if p.ipc == ipc and p.cost]
        if sizes:
            axis.set_xscale("symlog", linthresh=min(sizes))
            axis.set_xlim(-min(sizes) / 2, 1.6 * max(sizes))
        axis.set_xlabel("bits of teacher labels, or of online teachers")
        axis.set_title(f"IPC {ipc}", fontsize="medium")
    for axis in axes if layout.narrow else axes[:1]:
        axis.set_ylabel("accuracy, %")
    layout.legend(figure, axes[-1])
    return figure
