"""The drawings of the site as plain data for plotly, and the tables beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dd_bench.records.record import Record

from ..core.boards import Board
from ..core.entries import ACCURACY
from ..core.row_labels import labelled
from ..render.continual import courses, steps_of
from ..render.cost import Point, front
from ..render.cross_arch import change, matrices, others
from ..render.formatting import interval, number
from .rows import Cells, column, entry_at


def cost_plot(board: Board, found: Sequence[Point]) -> dict[str, Any] | None:
    """Returns the drawing of value against bytes and seconds, with the Pareto front of each; None of too few points."""
    if len(found) < 3:
        return None
    scale = 100 if board.track.metric == ACCURACY else 1
    costs = {
        "bytes": [float(p.size) for p in found],
        "making": [max(p.making, 0.01) for p in found],  # a logarithm has no zero
        "measuring": [max(p.measuring, 0.01) for p in found],
    }
    titles = (
        "bytes of the set, with its labels",
        "seconds to make it, teachers and experts too",
        "seconds of one network",
    )
    values = [scale * p.value for p in found]
    traces = []
    row_of = {c.record.key: label for label, cells in board.rows.items() for c in cells if c.record}
    for method in dict.fromkeys(p.record.method for p in found):  # a colour each, however many entries it has
        mine = [i for i, p in enumerate(found) if p.record.method == method]
        spread = [scale * (found[i].record.summary().std or 0) for i in mine]
        traces.append(
            {axis: [costs[axis][i] for i in mine] for axis in costs}
            | {"y": [values[i] for i in mine], "error_y": {"array": spread, "thickness": 1}}
            | {"customdata": [f"../{entry_at(found[i].record)}" for i in mine]}
            | {"text": [f"{row_of[found[i].record.key]}, IPC {found[i].ipc}" for i in mine]}
            | {"name": method, "mode": "markers"}
            | {"hovertemplate": "%{text}: %{y:.4~g}<br>%{x:,.4~g}<extra></extra>"}
        )
    fronts = {}
    for axis, of in costs.items():
        on = sorted((c, v) for c, v, holds in zip(of, values, front(of, values), strict=True) if holds)
        fronts[axis] = {"x": [c for c, _ in on], "y": [v for _, v in on]}
    axes: dict[str, Any] = {a: {"title": t, "type": "log"} for a, t in zip(costs, titles, strict=True)}
    axes["y"] = {"title": f"{board.track.metric}, %" if scale == 100 else board.track.metric}
    return {"traces": traces, "axes": axes, "fronts": fronts}


def cross_arch_parts(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Returns the matrices of methods and networks, one a track, the drop from the set's own network in brackets."""
    parts = []
    for track, found, names in matrices(records):
        columns = [
            column("method", "Method", "text"),
            column("ipc", "IPC", filter=True),
            column("own", track.model),
        ]
        columns += [column(name, name) for name in names]
        label_of, rows = labelled(found), []
        for r in sorted(found, key=lambda r: (r.ipc, label_of[r.key])):
            s = r.summary()
            cells: Cells = [{"text": label_of[r.key], "href": entry_at(r)}, r.ipc]
            cells.append({"text": number([s.mean, s.std], r.main_metric), "sort": s.mean})
            for name in names:
                if name not in others(r):
                    cells.append(None)
                    continue
                o = r.summary(f"{r.main_metric}:{name}")
                less = number(change(r, name), r.main_metric)
                cells.append({"text": f"{number([o.mean, o.std], r.main_metric)} ({less})", "sort": o.mean})
            rows.append({"cells": cells})
        table = {"columns": columns, "rows": rows}
        parts.append({"title": track.title, "anchor": track.slug, "rows": table, "plot": None})
    return parts


def continual_parts(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Returns the class-incremental curves and their tables, one a track and number of steps."""
    parts = []
    for (track, steps), found in courses(records).items():
        columns = [column("method", "Method", "text"), column("ipc", "IPC", filter=True)]
        columns += [column(f"s{s}", f"Step {s}") for s in range(1, steps + 1)]
        columns += [column("average", "Average"), column("forgetting", "Forgetting")]
        label_of, rows, traces = labelled(found), [], []
        for r in sorted(found, key=lambda r: (r.ipc, label_of[r.key])):
            wanted = [*steps_of(r), "average", "forgetting"]
            cells: Cells = [{"text": label_of[r.key], "href": entry_at(r)}, r.ipc]
            rows.append(
                {"cells": cells + [{"text": interval(r, m), "sort": r.summary(m).mean} for m in wanted]}
            )
            sums = [r.summary(m) for m in steps_of(r)]
            half = [100 * ((s.ci_high or s.mean) - s.mean) for s in sums]
            traces.append(
                {"x": list(range(1, steps + 1)), "y": [100 * s.mean for s in sums], "mode": "lines+markers"}
                | {"name": f"{label_of[r.key]}, IPC {r.ipc}", "error_y": {"array": half, "thickness": 1}}
                | {"customdata": [entry_at(r)] * steps}
            )
        axes = {"x": {"title": "steps", "type": "linear", "ticks": list(range(1, steps + 1))}}
        axes["y"] = {"title": "accuracy on the classes so far, %"}
        title = f"{steps} steps. {track.title}, {track.model}"
        parts.append(
            {"title": title, "anchor": f"{track.slug}-{steps}", "rows": {"columns": columns, "rows": rows}}
            | {"plot": {"traces": traces, "axes": axes, "fronts": None}}
        )
    return parts
