"""The table of a board: one row per entry, with its interval, costs, hyper-parameters and verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dd_bench.records.record import Record

from ..core.boards import Board, Cell
from ..core.budget import size_text
from ..core.entries import ACCURACY, FOREIGN_REFERENCE, HARD_LABEL_RANDOM
from ..core.hyperparameters import CHOSEN
from ..core.ranking import Place
from ..core.verified import Verdict
from ..render.architectures import DATA_CONTROLS
from ..render.cost import Point
from ..render.formatting import interval, interval_bounds, interval_text, networks, number, printed
from .addresses import entry_url
from .cells import Cells, column, ipc_cell, method_cell, score_text
from .comparison import compared_rows, comparison

MAX_METRIC_COLUMNS = 12
"""Maximum number of other metrics shown as columns. If there are more (`nas`), only the pages of entries show them."""
VERIFIED = "dd-bench verify trained the networks again; other machine: not the processor of the entry"


def track_rows(board: Board, points: Mapping[str, Point], verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    """Return the table of a board: one row per entry, and one row per control that does not depend on a set.

    Args:
        board: the board.
        points: costs of the entries of the board, by record key.
        verdicts: verdicts on retrained entries, by digest of the entry.
    """
    metric = board.track.metric
    unit = ", %" if metric == ACCURACY else ""
    done = [r for r in board.records if r.status == "done"]
    others = sorted({m for r in done for m in r.metrics} - {metric})
    more_metrics = [m for m in others if m not in DATA_CONTROLS] if len(others) <= MAX_METRIC_COLUMNS else []
    has_published = any(board.has_published(i) for i in range(len(board.ipcs)))
    columns = [
        column("method", "Method", "text"),
        column("ipc", "IPC", filter=True),
        column("mean", f"{metric}{unit}", title="mean ± standard deviation over fresh networks"),
        column(
            "ci", "95 % interval", title="scaled to the intervals at the same IPC; arrow: below this scale"
        ),
        column(
            "n", "n", wide=True, title="number of fresh networks; sets × networks if there are several sets"
        ),
    ]
    title = "numbers from papers, never ranked"
    columns += [column("published", "Published", wide=True, title=title)] if has_published else []
    columns += [column(m, f"{m}{unit}", wide=True, extra=True) for m in more_metrics]
    ratio = "stored bytes divided by those of IPC real samples per class, images with 8 bits per value"
    making = "seconds per set: preparation (teachers, experts), distillation or selection, and labelling"
    columns += [
        column("bytes", "Bytes", extra=True, title="stored bytes of a set with its labels"),
        column("relative", "× 8-bit", wide=True, title=ratio),
        column("making", "Creation, s", roomy=True, title=making),
        column(
            "measuring",
            "Evaluation, s",
            extra=True,
            title="seconds per fresh network, including its controls",
        ),
    ]
    has_verdicts = any(r.digest in verdicts for r in board.records)
    title = "; ".join(f"{choice}: {text}" for choice, text in CHOSEN.items())
    columns += [column("chosen", "Hyper-parameters", "text", roomy=True, filter=True, title=title)]
    columns += (
        [column("verified", "Verified", "text", wide=True, filter=True, title=VERIFIED)]
        if has_verdicts
        else []
    )
    columns += [column("entry", "Entry", "text", wide=True, extra=True)]
    rows: list[dict[str, Any]] = []
    compared = compared_rows(board)
    for label, cells in board.rows.items():
        seen = set()
        for cell in cells:
            record = cell.record
            if record is not None and record.key not in seen:
                seen.add(record.key)
                name = label + " §" * (label in board.mixed)
                own = method_cell(name, f"../{entry_url(record)}")
                if text := board.row_text(label):
                    own |= {"sub": text, "title": board.notes.get(label, {}).get(record.ipc, text)}
                row: Cells = [own, ipc_cell(record)]
                row += _score_cells(record, cell.place, metric)
                row += [_published_cell(cell)] if has_published else []
                row += [_metric_cell(record, name) for name in more_metrics]
                row += _cost_cells(record, points.get(record.key), board.sizes.get(record.key))
                row += [_chosen_cell(board, record)]
                row += [_verdict_cell(record, verdicts.get(record.digest))] if has_verdicts else []
                row.append({"text": record.digest[:8], "href": f"../{entry_url(record)}"})
                rows.append(
                    {"cells": row}
                    | ({"compare": compared[record.key]} if record.key in compared else {})
                    | ({"control": True} if label in (FOREIGN_REFERENCE, HARD_LABEL_RANDOM) else {})
                )
    for name, means in data_controls(board).items():
        for ipc, value in means.items():
            start: Cells = [f"{name} (no set)", ipc, {"text": number([value], metric), "sort": value}]
            rows.append({"cells": start + [None] * (len(columns) - 3), "control": True})
    return {"columns": columns, "rows": sorted(rows, key=_row_order), "compare": comparison(board)}


def data_controls(board: Board) -> dict[str, dict[int, float]]:
    """Return the means of the controls that do not depend on a set, by name and IPC."""
    done = [r for r in board.records if r.status == "done"]
    found: dict[str, dict[int, float]] = {}
    for name in sorted({m for r in done for m in r.metrics} & set(DATA_CONTROLS)):
        for ipc in board.ipcs:
            values = [r.summary(name).mean for r in done if name in r.metrics and r.ipc == ipc]
            if values:
                found.setdefault(name, {})[ipc] = sum(values) / len(values)
    return found


def _row_order(row: Mapping[str, Any]) -> tuple[float, float]:
    """Return a sort key: by IPC, then by value with the highest first. Rows without a value are last at their IPC."""
    _, ipc, value, *_ = row["cells"]
    size = ipc["sort"] if isinstance(ipc, dict) else ipc
    return size, math.inf if value["sort"] is None else -value["sort"]


def _score_cells(record: Record, place: Place | None, metric: str) -> Cells:
    """Return the cells of the mean, its interval and the number of networks."""
    if record.status != "done":
        return [{"text": record.status, "sort": None, "mark": record.status}, None, None]
    s, bounds = record.summary(), interval_bounds(record, metric)
    mean = {"text": score_text(record), "sort": s.mean} | ({"mark": place} if place else {})
    interval_cell = bounds and {
        "text": interval_text(record, metric),
        "sort": s.mean,
        "low": bounds[0],
        "high": bounds[1],
    }
    return [mean, interval_cell, {"text": networks(record), "sort": s.num_networks}]


def _published_cell(cell: Cell) -> dict[str, Any] | None:
    if not cell.published:
        return None
    texts = [f"{printed(p.number)} [{p.letter}{'†' * (not p.number.verified)}]" for p in cell.published]
    return {"text": " / ".join(texts), "sort": cell.published[0].number.mean}


def _metric_cell(record: Record, name: str) -> dict[str, Any] | None:
    if name not in record.metrics:
        return None
    return {"text": interval(record, name), "sort": record.summary(name).mean}


def _cost_cells(record: Record, point: Point | None, relative: float | None) -> Cells:
    """Return four cells: bytes of the set, its bytes relative to real samples, seconds to create and to evaluate it."""
    size = sum(record.stored_bytes.values())
    seconds: Cells = (
        [{"text": f"{s:,.1f}", "sort": s} for s in (point.creation, point.evaluation)]
        if point
        else [None, None]
    )
    ratio = {"text": size_text(relative), "sort": relative} if relative else None
    return [{"text": f"{size:,}", "sort": size} if size else None, ratio, *seconds]


def _chosen_cell(board: Board, record: Record) -> dict[str, Any] | None:
    """Return the cell of how the hyper-parameters were chosen; None for a record of another board."""
    origin = board.origins.get(record.key)
    return {"text": origin.choice, "title": origin.reason} if origin else None


def _verdict_cell(record: Record, verdict: Verdict | None) -> dict[str, Any] | None:
    return _mark_cell(verdict.mark(record)) | {"title": verdict.summary()} if verdict else None


def _mark_cell(mark: str) -> dict[str, Any]:
    """Return a verdict in two lines, `verified` and `other machine`."""
    verdict, _, other = mark.partition(", ")
    return {"text": verdict} | ({"sub": other} if other else {})
