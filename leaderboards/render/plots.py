"""Plots of boards as SVG: accuracy against bytes, seconds, bytes of labels and IPC, and class-incremental learning.

The output is deterministic for a given version of matplotlib, which is an optional dependency. A file contains the
digests of its entries and the version of matplotlib.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from dd_bench.records.record import Record
from dd_bench.runtime.files import content_key, write_atomic

from ..core.entries import ACCURACY, Track, load_entries
from .accuracy_plots import accuracy_plots
from .continual import group_by_steps, step_metrics
from .cost import Point, pareto_front, points
from .label_bytes import LabelPoint, curves, label_points
from .markup import PLAIN
from .plot_style import Plot, styles


def draw(entries_dir: Path, out_dir: Path, changed_only: bool = False) -> list[Path]:
    """Write all `plots` as `<name>.svg` in a folder, and return the paths.

    With `changed_only`, plots whose file has the same description are not written again.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: an entry is invalid, see `load_entries`.
    """
    try:
        matplotlib = import_module("matplotlib")
        matplotlib.use("Agg")
        plt = import_module("matplotlib.pyplot")
    except ImportError as error:
        raise ImportError("plots require matplotlib. Install it: pip install 'dd-bench[plots]'") from error
    written = []
    with matplotlib.rc_context({"svg.hashsalt": "dd_bench", "font.size": 10, "svg.fonttype": "none"}):
        for plot in plots(load_entries(entries_dir)):
            path = out_dir / f"{plot.name}.svg"
            if changed_only and described(path) == plot.description:
                continue
            figure = plot.figure(plt)
            text = io.BytesIO()
            figure.savefig(
                text,
                format="svg",
                bbox_inches="tight",
                metadata={"Date": None, "Description": plot.description},
            )
            plt.close(figure)
            write_atomic(path, text.getvalue())
            written.append(path)
    return written


def described(path: Path) -> str | None:
    """Return the description in the file of a plot; None if there is no such file or description."""
    found = re.search("<dc:description>(.*?)</dc:description>", path.read_text()) if path.exists() else None
    return html.unescape(found[1]) if found else None


def plots(entries: Sequence[Record]) -> Iterator[Plot]:
    """Yield the plots of all boards.

    Their names are `<dataset>/cost--<board>`, `<dataset>/continual--<board>-<steps>`, `<dataset>/ipc--<board>`,
    `<dataset>/forest--<board>` and `<dataset>/label_bytes--<digest of the group>`.
    """
    yield from _cost_plots(entries)
    yield from _continual_plots(entries)
    yield from _label_plots(entries)
    yield from accuracy_plots(entries)


def _cost_plots(entries: Sequence[Record]) -> Iterator[Plot]:
    for track, found in points(entries).items():
        if len(found) > 2:
            figure = partial(_plot_cost, found=found, metric=track.metric)
            yield Plot(f"{track.folder}/cost--{track.name}", [p.record for p in found], figure)


def _plot_cost(plt: Any, found: Sequence[Point], metric: str) -> Any:
    room = 0.08 * max(len(p.record.method) for p in found)  # inches, for the legend
    figure, axes = plt.subplots(1, 2, figsize=(7.5 + room, 3.6), sharey=True, layout="constrained")
    scale = 100 if metric == ACCURACY else 1
    marks = dict(zip(dict.fromkeys(p.record.method for p in found), styles(), strict=False))
    for axis, name, costs in (
        (axes[0], "bytes of the set", [float(p.size) for p in found]),
        (axes[1], "seconds to create it, including teachers and experts", [p.creation for p in found]),
    ):
        on_front = pareto_front(costs, [p.value for p in found])
        costs = [max(cost, 0.01) for cost in costs]  # the axis is logarithmic
        front = sorted((c, p.value * scale) for c, p, on in zip(costs, found, on_front, strict=True) if on)
        axis.plot(*zip(*front, strict=True), color="0.7", drawstyle="steps-post", zorder=0)
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
                label=PLAIN.escape(method),
                capsize=2,
                markersize=5,
            )
        axis.set_xscale("log")
        axis.set_xlabel(name)
    axes[0].set_ylabel(f"{metric}, %" if metric == ACCURACY else metric)
    axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def _continual_plots(entries: Sequence[Record]) -> Iterator[Plot]:
    for (track, steps), found in group_by_steps(entries).items():
        name = f"{track.folder}/continual--{track.name}-{steps}"
        yield Plot(name, found, partial(_plot_continual, found=found))


def _plot_continual(plt: Any, found: Sequence[Record]) -> Any:
    room = 0.08 * max(len(r.method) + len(", IPC 10") for r in found)
    figure, axis = plt.subplots(figsize=(5 + room, 3.6), layout="constrained")
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
            capsize=2,
        )
    axis.set_xticks(at)
    axis.set_xlabel("step")
    axis.set_ylabel("accuracy on the classes seen so far, %\n(95 % intervals)")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def _label_plots(entries: Sequence[Record]) -> Iterator[Plot]:
    for title, found in label_points(entries):
        folder = Track.of(found[0].record).folder
        name = f"{folder}/label_bytes--{content_key(title)[:8]}"
        yield Plot(name, [p.record for p in found], partial(_plot_labels, found=found))


def _plot_labels(plt: Any, found: Sequence[LabelPoint]) -> Any:
    """Stored labels as a line over their bytes, hard labels at 0 bytes, and online labels as a dashed line."""
    room = 0.08 * max(len(f"{p.method}, IPC {p.ipc}") for p in found)
    figure, axis = plt.subplots(figsize=(5 + room, 3.6), layout="constrained")
    for ((method, ipc), (stored, online)), (colour, shape) in zip(
        curves(found).items(), styles(), strict=False
    ):
        axis.errorbar(
            [p.size for p in stored],
            [100 * p.record.summary().mean for p in stored],
            [100 * (p.record.summary().std or 0) for p in stored],
            fmt=f"{shape}-",
            color=colour,
            label=PLAIN.escape(f"{method}, IPC {ipc}"),
            capsize=2,
            markersize=5,
        )
        for p in online:
            axis.axhline(100 * p.record.summary().mean, color=colour, linestyle="--", linewidth=0.8, zorder=0)
    smallest = min(p.size for p in found if p.size)
    axis.set_xscale("symlog", linthresh=smallest)
    axis.set_xlim(left=-smallest / 2)
    axis.set_xlabel("bytes of stored teacher labels (0: hard labels; dashed: online labels)")
    axis.set_ylabel("accuracy, %")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure
