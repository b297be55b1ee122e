"""Tables of the site as plain data: columns and rows that the page sorts and filters."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from markupsafe import Markup

from dd_bench.records.record import Record

from ..core.boards import Board, Cell
from ..core.budget import size_text
from ..core.entries import ACCURACY, FOREIGN_REFERENCE, HARD_LABEL_RANDOM, REFERENCE, Track
from ..core.hyperparameters import CHOSEN
from ..core.method_info import links_of
from ..core.ranking import Place
from ..core.verified import Verdict
from ..render.architectures import DATA_CONTROLS
from ..render.cost import Point
from ..render.formatting import (
    interval,
    interval_bounds,
    interval_text,
    networks,
    number,
    printed,
)
from .addresses import entry_url
from .comparison import compared_rows, comparison

MAX_METRIC_COLUMNS = 12
"""Maximum number of other metrics shown as columns. If there are more (`nas`), only the pages of entries show them."""
MAX_CELL = 30
"""Maximum length of a name in the table of boards."""
VERIFIED = "dd-bench verify trained the networks again; other machine: not the processor of the entry"

Cells = list[Any]


def column(ident: str, label: str, kind: str = "number", **more: Any) -> dict[str, Any]:
    """Return a column of kind `text` or `number`.

    Options: `title` is its tool tip, `long` makes it wider, and `filter` adds a filter menu. A column is hidden on a
    phone (`medium`: below 40 rem), also on a tablet (`wide`: below 56 rem), also in a narrow window (`roomy`: below
    64 rem), or at every width (`extra`), until all columns are shown. `low_is_best`: the scale of its intervals has all
    values. `fold`: on a phone, its cells are lines of the column before it, as intervals are.
    """
    return {"id": ident, "label": label, "kind": kind, **more}


def method_cell(label: str, href: str) -> dict[str, Any]:
    """Return the cell of a method: a link to its page or entry, if any, and the address of its paper, if known."""
    method = re.split(r" [#§(]", label)[0]
    paper = links_of(method).paper
    return {"text": label} | ({"href": href} if href else {}) | ({"paper": paper} if paper else {})


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
                row: Cells = [own, _ipc(record)]
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


def _ipc(record: Record) -> Any:
    return {"text": "all", "sort": 1e9} if record.method == REFERENCE else record.ipc


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


def score_text(record: Record) -> str:
    """Return the mean and standard deviation of the main metric. `all equal` stands for a standard deviation of 0."""
    s = record.summary()
    if is_constant(s.std):
        return f"{number([s.mean], record.main_metric)}, all equal"
    return number([s.mean, s.std], record.main_metric)


def is_constant(std: float | None) -> bool:
    """Return whether a standard deviation is 0, except for rounding."""
    return std is not None and std < 1e-9


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


def heading(track: Track) -> str:
    """Return a title of a track that is short enough for a phone: without the network and the names of teachers."""
    labels = labels_cell(track)
    text = f"{labels['text']} labels" if isinstance(labels, dict) else f"{labels} labels"
    chosen = "" if track.selection == "last" else f", {track.selection}"
    return f"{track.dataset}: {track.metric}, {track.protocol} v{track.version}{chosen}, {text}"


def labels_cell(track: Track) -> Any:
    """Return the label mode with the number of teachers; their names are a tool tip."""
    if not track.teachers:
        return track.label_mode
    count = track.teachers.count("+") + 1
    return {"text": f"{track.label_mode} ({count} teacher{'s' * (count > 1)})", "title": track.teachers}


def settings_cell(name: str, sub: str = "") -> Any:
    """Return a name with many values, `nas(sample=30, ...)`, as a short text that opens to the whole name.

    `sub` is a second line.
    """
    text = short_name(name)
    if text == name and not sub:
        return text
    return {"text": text} | ({"more": name} if text != name else {}) | ({"sub": sub} if sub else {})


def _protocol(track: Track) -> str:
    chosen = f", {track.selection}" if track.selection != "last" else ""
    return f"{track.protocol} v{track.version}{chosen}"


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


def short_name(name: str) -> str:
    """Return a long name with the number of its values instead of them.

    Examples: `nas (3 settings)`, or `timm resnet101 (1 setting)` if one of them is a name.
    """
    if len(name) <= MAX_CELL:
        return name
    start, _, values = name.partition("(")
    inner, _, end = values.rpartition(")")
    keys = re.findall(r"(?:^|, )([\w.]+)=", inner)
    if own := re.search(r"(?:^|, )name=([^,]+)", inner):
        start, keys = f"{start} {own[1]}", [key for key in keys if key != "name"]
    return f"{start}{end}" + (f" ({len(keys)} setting{'s' * (len(keys) != 1)})" if keys else "")


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
                _ipc(r),
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


def html_list(rows: Mapping[str, Any]) -> Markup:
    """Return the rows of a table as an HTML list with column names and links, for browsers without JavaScript."""
    items = []
    for row in rows["rows"]:
        texts: list[str] = []
        for at, cell in zip(rows["columns"], row["cells"], strict=True):
            parts = cell if isinstance(cell, dict) else {"text": cell}
            if parts["text"] not in (None, ""):
                notes = [str(parts[name]) for name in ("mark", "sub", "narrow", "more") if name in parts]
                text = escape(" ".join([str(parts["text"]), *(f"({note})" for note in notes)]))
                link = f'<a href="{escape(parts["href"])}">{text}</a>' if "href" in parts else text
                texts.append(link if not texts else f"{escape(at['label'])} {link}")
        items.append(f"<li>{'; '.join(texts)}</li>")
    return Markup(f"<ul>{''.join(items)}</ul>")
