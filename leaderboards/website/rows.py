"""The tables of the site as plain data: columns and rows that the page sorts and filters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from markupsafe import Markup

from dd_bench.records.record import Record

from ..core.boards import REFERENCE, Board, Cell
from ..core.entries import ACCURACY, BORROWED
from ..core.published import PublishedSet
from ..render.cost import Point
from ..render.formatting import ends, interval, networks, number, printed, span

CONTROLS = ("size_only", "majority")
"""Metrics that do not depend on the set: the same for every entry of a board, and a row of it."""
MOST = 12
"""Other metrics that are columns; of more (`nas`) the page of an entry tells."""

Cells = list[Any]


def column(ident: str, label: str, kind: str = "number", **more: Any) -> dict[str, Any]:
    """Returns a column: `kind` is `text` or `number`.

    `wide` hides it on a phone, `long` gives room to long words, `filter` gives it a menu.
    """
    return {"id": ident, "label": label, "kind": kind, **more}


def entry_at(record: Record) -> str:
    """Returns the permanent address of an entry's page, from the root of the site."""
    return f"entries/{record.digest[:16]}.html"


def track_rows(board: Board, points: Mapping[str, Point], verdicts: Mapping[str, str]) -> dict[str, Any]:
    """Returns the table of a board: a row an entry, and the controls that are of no set.

    Args:
        board: whose.
        points: costs of its entries, by key.
        verdicts: what training anew said of an entry, by digest.
    """
    metric = board.track.metric
    unit = ", %" if metric == ACCURACY else ""
    done = [r for r in board.records if r.status == "done"]
    named = sorted({m for r in done for m in r.metrics} - {metric})
    controls = [m for m in named if m in CONTROLS]
    beside = [m for m in named if m not in CONTROLS] if len(named) <= MOST else []
    quoted = any(cell.quotes for cells in board.rows.values() for cell in cells)
    columns = [
        column("method", "Method", "text"),
        column("ipc", "IPC", filter=True),
        column("mean", f"{metric}{unit}", title="mean ± standard deviation over fresh networks"),
        column("ci", "95 % interval"),
        column("n", "n", wide=True, title="fresh networks; sets × networks where there are several sets"),
    ]
    columns += [column("published", "Published", title="of a paper, never ranked")] if quoted else []
    columns += [column(m, f"{m}{unit}", wide=True) for m in beside]
    columns += [
        column("bytes", "Bytes", wide=True),
        column("making", "Making, s", wide=True, title="teachers, experts and distilling, or choosing"),
        column("measuring", "Measuring, s", wide=True, title="of one fresh network, with its controls"),
    ]
    told = any(r.digest in verdicts for r in board.records)
    columns += [column("verified", "Verified", "text", wide=True, filter=True)] if told else []
    columns += [column("entry", "Entry", "text", wide=True)]
    rows: list[dict[str, Any]] = []
    for label, cells in board.rows.items():
        seen = set()
        for cell in cells:
            if cell.record is not None and cell.record.key not in seen:
                seen.add(cell.record.key)
                row: Cells = _entry_cells(label, cell, board, beside, quoted, points, verdicts, told)
                rows.append({"cells": row} | ({"control": True} if label == BORROWED else {}))
    for name in controls:
        for ipc in board.ipcs:
            of = [r.summary(name) for r in done if name in r.metrics and r.ipc == ipc]
            if of:
                value = sum(s.mean for s in of) / len(of)
                cells_of: Cells = [f"{name} (no set)", ipc, {"text": number([value], metric), "sort": value}]
                rows.append({"cells": cells_of + [None] * (len(columns) - 3), "control": True})
    return {"columns": columns, "rows": sorted(rows, key=_standing)}


def _standing(row: Mapping[str, Any]) -> tuple[float, float]:
    """Returns a key by which the smallest sets come first, and of one size the best; what has no value is last."""
    _, ipc, value, *_ = row["cells"]
    size = ipc["sort"] if isinstance(ipc, dict) else ipc
    return size, math.inf if value["sort"] is None else -value["sort"]


def _entry_cells(
    label: str,
    cell: Cell,
    board: Board,
    beside: Sequence[str],
    quoted: bool,
    points: Mapping[str, Point],
    verdicts: Mapping[str, str],
    told: bool,
) -> Cells:
    record, point = cell.record, points.get(cell.record.key if cell.record else "")
    assert record is not None
    metric, up = board.track.metric, f"../{entry_at(record)}"
    cells: Cells = [{"text": label, "href": up}, _ipc(record)]
    if record.status == "done":
        s = record.summary()
        shown = {"text": number([s.mean, s.std], metric), "sort": s.mean}
        cells.append(shown | ({"mark": cell.place} if cell.place else {}))
        of = span(record, metric)
        cells.append(of and {"text": ends(record, metric), "sort": s.mean, "low": of[0], "high": of[1]})
        cells.append({"text": networks(record), "sort": s.num_networks})
    else:
        cells += [{"text": record.status, "sort": None, "mark": record.status}, None, None]
    if quoted:
        cells.append(_quoted(cell))
    for name in beside:
        has = name in record.metrics
        cells.append({"text": interval(record, name), "sort": record.summary(name).mean} if has else None)
    size = sum(record.stored_bytes.values())
    cells.append({"text": f"{size:,}", "sort": size} if size else None)
    for seconds in (point.making, point.measuring) if point else (None, None):
        cells.append(None if seconds is None else {"text": f"{seconds:,.1f}", "sort": seconds})
    if told:
        said = verdicts.get(record.digest, "")
        cells.append({"text": said.partition(":")[0], "title": said} if said else None)
    cells.append({"text": record.digest[:8], "href": up})
    return cells


def _ipc(record: Record) -> Any:
    return {"text": "all", "sort": 1e9} if record.method == REFERENCE else record.ipc


def _quoted(cell: Cell) -> dict[str, Any] | None:
    if not cell.quotes:
        return None
    told = [f"{printed(q.number)} [{q.letter}{'†' * (not q.number.verified)}]" for q in cell.quotes]
    return {"text": " / ".join(told), "sort": cell.quotes[0].number.mean}


def board_rows(made: Sequence[Board]) -> dict[str, Any]:
    """Returns the table of all boards, those with most entries first."""
    columns = [
        column("dataset", "Dataset", "text", filter=True),
        column("protocol", "Protocol", "text", filter=True),
        column("labels", "Labels", "text", filter=True, long=True),
        column("evaluator", "Evaluator", "text", filter=True, wide=True),
        column("network", "Network", "text", filter=True, wide=True, long=True),
        column("metric", "Metric", "text", wide=True),
        column("entries", "Entries"),
        column("best", "Best, by IPC", "text", wide=True, long=True),
        column("warnings", "Warnings", "text", wide=True),
    ]
    rows = []
    for board in sorted(made, key=lambda board: -len(board.records)):
        t = board.track
        protocol = f"{t.protocol} v{t.version}" + (f", {t.selection}" if t.selection != "last" else "")
        best = [
            f"{r.ipc}: {r.method} {number([r.summary().mean], t.metric)}"
            for r in sorted(board.records, key=lambda r: r.ipc)
            if board.places.get(r.key) == "best"
        ]
        cells: Cells = [{"text": t.dataset, "href": f"boards/{t.slug}.html"}, protocol]
        cells += [
            f"{t.label_mode} of {t.teachers.replace('+', ' + ')}" if t.teachers else t.label_mode,
            t.evaluator,
            t.model,
            t.metric,
        ]
        cells += [len(board.records), "; ".join(best), "; ".join(board.warnings)]
        rows.append({"cells": cells})
    return {"columns": columns, "rows": rows}


def every_row(made: Sequence[Board]) -> dict[str, Any]:
    """Returns the table of all entries, the newest first."""
    columns = [
        column("method", "Method", "text", filter=True),
        column("dataset", "Dataset", "text", filter=True),
        column("ipc", "IPC", filter=True),
        column(
            "value", "Value", title="of its main metric, mean ± standard deviation; compare on boards alone"
        ),
        column("metric", "Metric", "text", wide=True, filter=True),
        column("protocol", "Protocol", "text", filter=True),
        column("labels", "Labels", "text", wide=True, filter=True),
        column("network", "Network", "text", wide=True),
        column("created", "Measured", "text", wide=True),
        column("status", "Status", "text", wide=True, filter=True),
    ]
    found = []
    for board in made:
        for r in board.records:
            s = r.summary() if r.status == "done" else None
            value = {"text": number([s.mean, s.std], r.main_metric), "sort": s.mean} if s else None
            cells: Cells = [{"text": r.method, "href": entry_at(r)}, r.dataset, _ipc(r), value, r.main_metric]
            cells += [r.protocol.name, r.label_mode, r.model, r.created[:10], r.status]
            found.append((r.created, r.key, {"cells": cells}))
    return {"columns": columns, "rows": [row for *_, row in sorted(found, key=lambda f: f[:2], reverse=True)]}


def listed(rows: Mapping[str, Any]) -> Markup:
    """Returns the rows of a table as a list, each value with its column and its link, for a browser without scripts."""
    shown = []
    for row in rows["rows"]:
        told: list[str] = []
        for at, cell in zip(rows["columns"], row["cells"], strict=True):
            parts = cell if isinstance(cell, dict) else {"text": cell}
            if parts["text"] not in (None, ""):
                text = escape(str(parts["text"]) + (f" ({parts['mark']})" if "mark" in parts else ""))
                link = f'<a href="{escape(parts["href"])}">{text}</a>' if "href" in parts else text
                told.append(link if not told else f"{escape(at['label'])} {link}")
        shown.append(f"<li>{'; '.join(told)}</li>")
    return Markup(f"<ul>{''.join(shown)}</ul>")


def published_rows(published: Sequence[PublishedSet]) -> dict[str, Any]:
    """Returns the table of published numbers."""
    columns = [
        column("dataset", "Dataset", "text", filter=True),
        column("network", "Network", "text", filter=True),
    ]
    columns += [
        column("method", "Method", "text", filter=True),
        column("ipc", "IPC", filter=True),
        column("number", "Published, %"),
    ]
    columns += [
        column("protocol", "Protocol", "text", wide=True),
        column("source", "Source", "text", wide=True),
    ]
    rows = []
    for s in published:
        for c in s.cells:
            value = {"text": printed(c) + "†" * (not c.verified), "sort": c.mean}
            rows.append(
                {"cells": [s.dataset, s.model, c.method, c.ipc or "all", value, c.protocol, c.source]}
            )
    return {"columns": columns, "rows": rows}
