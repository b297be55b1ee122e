"""Plots of accuracy against stored bits: quantised versions of sets, and real images with 8 bits as lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from dd_bench.records.config_diff import STORED
from dd_bench.records.record import Record

from ..core.bits import precisions, stored_bits, tracks
from ..core.entries import ACCURACY, has_stored_precision
from .accuracy_plots import LINES
from .markup import PLAIN
from .plot_style import PAGE, Layout, Plot, styles


def bits_plots(entries: Sequence[Record]) -> Iterator[Plot]:
    """Yield a plot `bits--<board>` for each track with quantised sets."""
    for track, group in tracks(entries).items():
        curves = list(_curves(group))
        if curves:
            lines = list(_lines(group))
            shown = {r.key: r for _, records in (*curves, *lines) for r in records}
            figure = partial(_plot, curves=curves, lines=lines, metric=track.metric)
            yield Plot(f"{track.folder}/bits--{track.name}", list(shown.values()), figure)


def _curves(records: Sequence[Record]) -> Iterator[tuple[str, list[Record]]]:
    """Yield a name and the records of each set with the versions that have the same ranges, from few to many bits."""
    for original, versions in precisions(records):
        kinds: dict[str, list[Record]] = {}
        for version in versions:
            stored = version.record.config[STORED]
            text = str(stored.get("precision"))
            ranges = text.partition("range per ")[2]
            kinds.setdefault(f"range per {ranges}" if ranges else text, []).append(version.record)
        for kind, found in kinds.items():
            whole = [*([original] if original else []), *found]
            first = whole[0]
            yield f"{first.method}, IPC {first.ipc}, {kind}", sorted(whole, key=stored_bits)


def _lines(records: Sequence[Record]) -> Iterator[tuple[str, list[Record]]]:
    """Yield random images and k-means as returned, with at least two IPCs, from few to many bits."""
    for method in ("random", "kmeans"):
        found: dict[int, Record] = {}
        for r in sorted(records, key=lambda r: (r.created, r.key)):
            if r.method == method and r.status == "done" and not has_stored_precision(r):
                found.setdefault(r.ipc, r)
        if len(found) > 1:
            yield f"{method}, 8 bits", sorted(found.values(), key=stored_bits)


def _plot(
    plt: Any,
    layout: Layout = PAGE,
    *,
    curves: Sequence[tuple[str, list[Record]]],
    lines: Sequence[tuple[str, list[Record]]],
    metric: str,
) -> Any:
    room = 0.08 * max(len(name) for name, _ in curves)  # inches, for the legend
    figure, (axis,) = layout.panels(plt, 1, (5 + room, 3.6), 2.6)
    scale = 100 if metric == ACCURACY else 1
    for name, records in lines:
        colour, dashes = LINES[name.partition(",")[0]]
        values = [scale * r.summary().mean for r in records]
        axis.plot([stored_bits(r) for r in records], values, dashes, color=colour, label=name, zorder=0)
    for (name, records), (colour, shape) in zip(curves, styles(), strict=False):
        axis.errorbar(
            [stored_bits(r) for r in records],
            [scale * r.summary().mean for r in records],
            [scale * (r.summary().std or 0) for r in records],
            fmt=f"{shape}-",
            color=colour,
            label=PLAIN.escape(name),
            capsize=0.4 * layout.marker,
            markersize=layout.marker,
        )
    axis.set_xscale("log")
    axis.set_xlabel("stored bits of the set (without hard labels)")
    axis.set_ylabel(f"{metric}, %" if metric == ACCURACY else metric)
    layout.legend(figure, axis)
    return figure
