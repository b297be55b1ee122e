"""Drawings of boards as SVG: accuracy against bytes and seconds, and class-incremental learning step by step.

The same entries give the same bytes under one version of matplotlib, which is an extra.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from dd_bench.records.record import Record
from dd_bench.runtime.files import write_atomic

from ..core.entries import ACCURACY, load_entries
from .continual import courses, steps_of
from .cost import Point, front, points


def draw(entries_dir: Path, out_dir: Path) -> list[Path]:
    """Writes `<dataset>/cost--<board>.svg` and `<dataset>/continual--<board>-<steps>.svg`, and returns the files.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: an entry is refused, see `load_entries`.
    """
    try:
        matplotlib = import_module("matplotlib")
        matplotlib.use("Agg")
        plt = import_module("matplotlib.pyplot")
    except ImportError as error:
        raise ImportError("drawing needs matplotlib. Use: pip install 'dd-bench[plots]'") from error
    entries, written = load_entries(entries_dir), []
    with matplotlib.rc_context({"svg.hashsalt": "dd_bench", "font.size": 9, "svg.fonttype": "none"}):
        for name, paint in (*_costs(entries), *_curves(entries)):
            figure = paint(plt)
            text = io.BytesIO()
            figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
            plt.close(figure)
            write_atomic(out_dir / f"{name}.svg", text.getvalue())
            written.append(out_dir / f"{name}.svg")
    return written


Paint = Callable[[Any], Any]


def _costs(entries: Sequence[Record]) -> Iterator[tuple[str, Paint]]:
    for track, found in points(entries).items():
        if len(found) > 2:
            yield f"{track.folder}/cost--{track.name}", partial(_cost, found=found, metric=track.metric)


def _cost(plt: Any, found: Sequence[Point], metric: str) -> Any:
    room = 0.08 * max(len(p.record.method) for p in found)  # inches, for the legend
    figure, axes = plt.subplots(1, 2, figsize=(7.5 + room, 3.6), sharey=True, layout="constrained")
    scale = 100 if metric == ACCURACY else 1
    marks = dict(zip(dict.fromkeys(p.record.method for p in found), _styles(), strict=False))
    for axis, name, costs in (
        (axes[0], "bytes of the set", [float(p.size) for p in found]),
        (axes[1], "seconds to make it, teachers and experts too", [p.making for p in found]),
    ):
        on = front(costs, [p.value for p in found])
        costs = [max(cost, 0.01) for cost in costs]  # a logarithm has no zero
        best = sorted((c, p.value * scale) for c, p, holds in zip(costs, found, on, strict=True) if holds)
        axis.plot(*zip(*best, strict=True), color="0.7", drawstyle="steps-post", zorder=0)
        for method, (colour, shape) in marks.items():  # variants of one share it; cost.md tells them apart
            mine = [(c, p) for c, p in zip(costs, found, strict=True) if p.record.method == method]
            axis.errorbar(
                [c for c, _ in mine],
                [p.value * scale for _, p in mine],
                [(p.record.summary().std or 0) * scale for _, p in mine],
                fmt=shape,
                color=colour,
                label=method,
                capsize=2,
                markersize=5,
            )
        axis.set_xscale("log")
        axis.set_xlabel(name)
    axes[0].set_ylabel(f"{metric}, %" if metric == ACCURACY else metric)
    axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def _curves(entries: Sequence[Record]) -> Iterator[tuple[str, Paint]]:
    for (track, steps), found in courses(entries).items():
        yield f"{track.folder}/continual--{track.name}-{steps}", partial(_curve, found=found)


def _curve(plt: Any, found: Sequence[Record]) -> Any:
    room = 0.08 * max(len(r.method) + len(", IPC 10") for r in found)
    figure, axis = plt.subplots(figsize=(5 + room, 3.6), layout="constrained")
    for record, (colour, shape) in zip(
        sorted(found, key=lambda r: (r.ipc, r.method)), _styles(), strict=False
    ):
        sums = [record.summary(metric) for metric in steps_of(record)]
        at = list(range(1, len(sums) + 1))
        below = [0.0 if s.ci_low is None else 100 * (s.mean - s.ci_low) for s in sums]
        above = [0.0 if s.ci_high is None else 100 * (s.ci_high - s.mean) for s in sums]
        label = f"{record.method}, IPC {record.ipc}"
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
    axis.set_xlabel("steps")
    axis.set_ylabel("accuracy on the classes seen so far, %\n(95 % intervals)")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def _styles() -> Iterator[tuple[str, str]]:
    """Yields colours that are told apart without red and green, and shapes."""
    colours = ("#0072b2", "#e69f00", "#56b4e9", "#d55e00", "#cc79a7", "#009e73", "#000000", "#999999")
    for shape in "os^Dv*Px":
        for colour in colours:
            yield colour, shape
