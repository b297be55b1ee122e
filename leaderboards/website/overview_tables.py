"""The tables of all boards and of all entries. On every screen, each row shows in what it differs from the others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ..core.boards import Board
from ..core.entries import ACCURACY, Track
from ..render.formatting import number
from .addresses import entry_url
from .cells import Cells, column, ipc_cell, labels_cell, method_cell, score_text, settings_cell, short_name


def board_rows(all_boards: Sequence[Board], up: str = "") -> dict[str, Any]:
    """Return the table of several boards, those with most entries first. `up` is the path from the page to the root."""
    columns = [
        column("dataset", "Dataset", "text", filter=True),
        column("protocol", "Protocol", "text", filter=True),
        column("labels", "Labels", "text", filter=True, long=True),
        column("evaluator", "Evaluator", "text", filter=True, medium=True),
        column("network", "Network", "text", filter=True, medium=True, long=True),
        column("metric", "Metric", "text", medium=True),
        column("entries", "Entries", wide=True),
        column("best", "Best, by IPC", "text", wide=True, long=True),
        column("warnings", "Warnings", wide=True),
    ]
    rows = []
    distinct = distinguishing(board.track for board in all_boards)
    for board in sorted(all_boards, key=lambda board: -len(board.records)):
        t = board.track
        protocol = _protocol(t)
        best = [
            f"{r.ipc}: {r.method} {number([r.summary().mean], t.metric)}"
            for r in sorted(board.records, key=lambda r: r.ipc)
            if board.places.get(r.key) == "best"
        ]
        parts = (short_name(t.model), t.evaluator if t.evaluator != ACCURACY else "", t.metric)
        phone = ", ".join(dict.fromkeys(short_name(part) for part in parts if part))
        cells: Cells = [
            {"text": t.dataset, "href": f"{up}boards/{t.slug}.html", "phone": phone},
            settings_cell(protocol, distinct.get(t, "")),
        ]
        cells += [labels_cell(t), settings_cell(t.evaluator), settings_cell(t.model), t.metric]
        warnings = {
            "text": str(len(board.warnings)),
            "sort": len(board.warnings),
            "more": "; ".join(board.warnings),
        }
        cells += [len(board.records), "; ".join(best), warnings if board.warnings else None]
        rows.append({"cells": cells})
    return {"columns": columns, "rows": rows}


def entry_rows(all_boards: Sequence[Board]) -> dict[str, Any]:
    """Return the table of all entries, the newest first."""
    columns = [
        column("method", "Method", "text", filter=True),
        column("dataset", "Dataset", "text", filter=True),
        column("ipc", "IPC", filter=True),
        column(
            "value",
            "Value",
            title="mean ± standard deviation of the main metric; compare only within a board",
        ),
        column("metric", "Metric", "text", wide=True, filter=True),
        column("protocol", "Protocol", "text", medium=True, filter=True),
        column("labels", "Labels", "text", wide=True, filter=True),
        column("network", "Network", "text", medium=True),
        column("created", "Measured", "text", wide=True),
        column("status", "Status", "text", wide=True, filter=True),
    ]
    found = []
    for board in all_boards:
        for r in board.records:
            s = r.summary() if r.status == "done" else None
            phone = f"{short_name(r.protocol.name)}, {short_name(r.model)}"
            value = {"text": score_text(r), "sort": s.mean, "phone": phone} if s else None
            cells: Cells = [
                method_cell(r.method, entry_url(r)),
                r.dataset,
                ipc_cell(r),
                value,
                r.main_metric,
            ]
            cells += [
                settings_cell(r.protocol.name),
                r.label_mode,
                settings_cell(r.model),
                r.created[:10],
                r.status,
            ]
            found.append((r.created, r.key, {"cells": cells}))
    return {"columns": columns, "rows": [row for *_, row in sorted(found, key=lambda f: f[:2], reverse=True)]}


def distinguishing(tracks: Iterable[Track]) -> dict[Track, str]:
    """Return for each track whose short names are those of another one the settings that the others do not all have."""
    alike: dict[tuple[str, ...], list[tuple[Track, list[str]]]] = {}
    for t in tracks:
        names = (_protocol(t), t.evaluator, t.model)
        settings = [one for name in names for one in re.split(r", |[()]", name)]
        settings += [f"teachers {t.teachers}"] if t.teachers else []
        labels = (t.label_mode, str(t.teachers.count("+")))
        key = (t.dataset, *map(short_name, names), *labels, t.metric)
        alike.setdefault(key, []).append((t, settings))
    found = {}
    for group in alike.values():
        shared = set.intersection(*(set(settings) for _, settings in group))
        for t, settings in group if len(group) > 1 else ():
            found[t] = ", ".join(one for one in settings if one not in shared) or "no other setting"
    return found


def _protocol(track: Track) -> str:
    chosen = f", {track.selection}" if track.selection != "last" else ""
    return f"{track.protocol} v{track.version}{chosen}"
