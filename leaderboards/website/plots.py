"""Data of the site's plotly plots and of the tables next to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from dd_bench.records.record import Record

from ..core.boards import Board
from ..core.entries import ACCURACY
from ..core.method_info import Family, links_of
from ..core.row_labels import record_labels
from ..render.continual import group_by_steps, step_metrics
from ..render.cost import Point, ranked_front
from ..render.cross_arch import cross_arch_groups, difference, other_networks
from ..render.formatting import interval_text, number
from .addresses import entry_url
from .cells import Cells, column, heading, method_cell

COLOURS: tuple[Family, ...] = (
    "selection",
    "matching",
    "trajectory",
    "graphs",
    "coreset",
    "decoupled",
    "generative",
    "reference",
)
"""Families whose colours a plot uses for its rows. The first six are in the order of `plot_style.styles`."""
DASHES = ("solid", "dash", "dot", "dashdot")


def cost_plot(board: Board, found: Sequence[Point]) -> dict[str, Any] | None:
    """Return the plot of value against each cost, with Pareto fronts; None for fewer than three points."""
    if len(found) < 3:
        return None
    scale = 100 if board.track.metric == ACCURACY else 1
    costs = {
        "bits": [float(max(p.bits, 1)) for p in found],
        "making": [max(p.creation, 0.01) for p in found],  # the axes are logarithmic
        "measuring": [max(p.evaluation, 0.01) for p in found],
    }
    titles = (
        "bits of the set, including soft labels",
        "seconds to create it, including teachers and experts",
        "seconds to evaluate one network",
    )
    values = [scale * p.value for p in found]
    traces = []
    seen: Counter[Family] = Counter()  # methods of a family share its colour and differ in their symbol
    for method in dict.fromkeys(p.record.method for p in found):
        family = links_of(method).family
        mine = [i for i, p in enumerate(found) if p.record.method == method]
        spread = [scale * (found[i].record.summary().std or 0) for i in mine]
        traces.append(
            {axis: [costs[axis][i] for i in mine] for axis in costs}
            | {"y": [values[i] for i in mine], "error_y": {"array": spread, "thickness": 1}}
            | {"customdata": [f"../{entry_url(found[i].record)}" for i in mine]}
            | {"text": [f"{board.label_of[found[i].record.key]}, IPC {found[i].ipc}" for i in mine]}
            | {"name": method, "mode": "markers", "colour": family, "symbol": seen[family]}
            | {"hovertemplate": "%{text}: %{y:.4~g}<br>%{x:,.4~g}<extra></extra>"}
        )
        seen[family] += 1
    fronts = {}
    for axis, cost in costs.items():
        on_front = ranked_front([p.record for p in found], cost)
        steps = sorted((c, v) for c, v, on in zip(cost, values, on_front, strict=True) if on)
        fronts[axis] = {"x": [c for c, _ in steps], "y": [v for _, v in steps]}
    axes: dict[str, Any] = {a: {"title": t, "type": "log"} for a, t in zip(costs, titles, strict=True)}
    axes["y"] = {"title": f"{board.track.metric}, %" if scale == 100 else board.track.metric}
    return {"traces": traces, "axes": axes, "fronts": fronts}


def cross_arch_parts(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return one table per track, with methods as rows, networks as columns, and differences from the run's network."""
    parts = []
    for track, found, names in cross_arch_groups(records):
        columns = [
            column("method", "Method", "text"),
            column("ipc", "IPC", filter=True),
            column("own", track.model, title="the run's own network"),
        ]
        columns += [column(name, name, fold=True) for name in names]
        label_of, rows = record_labels(found), []
        for r in sorted(found, key=lambda r: (r.ipc, label_of[r.key])):
            s = r.summary()
            cells: Cells = [method_cell(label_of[r.key], entry_url(r)), r.ipc]
            cells.append({"text": number([s.mean, s.std], r.main_metric), "sort": s.mean})
            for name in names:
                if name not in other_networks(r):
                    cells.append(None)
                    continue
                o = r.summary(f"{r.main_metric}:{name}")
                text = number([o.mean, o.std], r.main_metric)
                cells.append({"text": text, "sub": difference(r, name), "sort": o.mean})
            rows.append({"cells": cells})
        table = {"columns": columns, "rows": rows}
        parts.append({"title": heading(track), "anchor": track.slug, "rows": table, "plot": None})
    return parts


def continual_parts(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return one plot and table of class-incremental learning per track and number of steps."""
    parts = []
    for (track, steps), found in group_by_steps(records).items():
        columns = [column("method", "Method", "text"), column("ipc", "IPC", filter=True)]
        # in a narrow window, the steps between the first and the last are hidden
        columns += [
            column(f"s{s}", f"Step {s}", medium=s == 1, roomy=1 < s < steps, title=f"after step {s}")
            for s in range(1, steps + 1)
        ]
        columns += [column("average", "Average"), column("forgetting", "Forgetting")]
        label_of, rows, traces = record_labels(found), [], []
        labels, ipcs = sorted(set(label_of.values())), sorted({r.ipc for r in found})
        for r in sorted(found, key=lambda r: (r.ipc, label_of[r.key])):
            metrics = [*step_metrics(r), "average", "forgetting"]
            cells: Cells = [method_cell(label_of[r.key], entry_url(r)), r.ipc]
            for m in metrics:
                mean = r.summary(m).mean
                cells.append(
                    {"text": number([mean], r.main_metric), "sub": interval_text(r, m), "sort": mean}
                )
            rows.append({"cells": cells})
            summaries = [r.summary(m) for m in step_metrics(r)]
            half = [100 * ((s.ci_high or s.mean) - s.mean) for s in summaries]
            y = [100 * s.mean for s in summaries]
            nth = labels.index(label_of[r.key])  # a row has one colour and symbol; the dashes are its IPC
            traces.append(
                {
                    "colour": COLOURS[nth % len(COLOURS)],
                    "symbol": nth,
                    "dash": DASHES[ipcs.index(r.ipc) % len(DASHES)],
                }
                | {"x": list(range(1, steps + 1)), "y": y, "mode": "lines+markers"}
                | {"name": f"{label_of[r.key]}, IPC {r.ipc}", "error_y": {"array": half, "thickness": 1}}
                | {"customdata": [entry_url(r)] * steps}
            )
        axes = {"x": {"title": "step", "type": "linear", "ticks": list(range(1, steps + 1))}}
        axes["y"] = {"title": "accuracy so far, %"}
        title = f"{steps} steps. {heading(track)}, {track.model}"
        parts.append(
            {"title": title, "anchor": f"{track.slug}-{steps}", "rows": {"columns": columns, "rows": rows}}
            | {"plot": {"traces": traces, "axes": axes, "fronts": None}}
        )
    return parts
