"""The page of one method, with what it does and all its results, and the list of all methods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from dd_bench.records.record import Record

from ..core.boards import Board
from ..core.citations import Cards
from ..core.commands import run_command
from ..core.entries import ACCURACY
from ..core.method_info import load_links, method_info, shipped_text
from ..render.formatting import published_text
from .addresses import dataset_url, entry_url, method_url
from .cells import Cells, column, method_cell, score_text, short_name
from .prose import prose
from .sets import KnownSet

MAX_PICTURES = 12
"""Maximum number of pictures on the page of a method or a dataset."""


def method_names(boards: Sequence[Board]) -> list[str]:
    """Return the methods with entries and the shipped methods, sorted."""
    shipped = {name for name in load_links() if shipped_text("method", name)}
    return sorted(shipped | {record.method for board in boards for record in board.records})


def method_page(
    name: str, names: Sequence[str], boards: Sequence[Board], sets: Mapping[str, KnownSet], cards: Cards
) -> dict[str, Any]:
    """Return the values for the template of a method's page. `names` are the methods that have a page."""
    info = method_info(name)
    found = [(board, r) for board in boards for r in board.records if r.method == name]
    own = [one for one in sets.values() if one.card.method == name]
    return {
        "title": name,
        "info": info,
        "description": prose(info.description),
        "citations": cards.methods.get(name, []),
        "rows": _result_rows(found) if found else None,
        "commands": list(_commands(name, [record for _, record in found])),
        "pictures": pictures(own, [record for _, record in found]),
        "sets": len(own),
        "datasets": sorted({record.dataset for _, record in found}),
        "variants": [other for other in names if other != name and _related(name, other)],
    }


def pictures(known: Sequence[KnownSet], records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the pictures of sets with links to their first entries, and as labels method, dataset and IPC."""
    first: dict[str, Record] = {}
    for record in sorted(records, key=lambda r: (r.created, r.key)):
        for digest in record.set_digests:
            first.setdefault(digest, record)
    shown = [
        {
            "image": one.picture,
            "entry": entry_url(first[one.digest]),
            "label": f"{one.card.method} on {one.card.dataset}, IPC {one.card.ipc}",
        }
        for one in sorted(known, key=lambda k: (k.card.dataset, k.card.method, k.card.ipc, k.name))
        if one.picture and one.digest in first
    ]
    return list({one["label"]: one for one in reversed(shown)}.values())[::-1][:MAX_PICTURES]


def method_rows(boards: Sequence[Board]) -> dict[str, Any]:
    """Return the table of all methods."""
    columns = [
        column("method", "Method", "text"),
        column("family", "Family", "text", filter=True),
        column("entries", "Entries"),
        column("about", "Description", "text", wide=True, long=True),
        column("datasets", "Datasets", "text", wide=True, long=True),
    ]
    rows = []
    for name in method_names(boards):
        records = [r for board in boards for r in board.records if r.method == name]
        cells: Cells = [
            method_cell(name, method_url(name)),
            method_info(name).links.family,
            len(records),
        ]
        cells += [method_info(name).title, ", ".join(sorted({r.dataset for r in records}))]
        rows.append({"cells": cells})
    return {"columns": columns, "rows": rows}


def _related(name: str, other: str) -> bool:
    """Return whether two methods are variants of the same paper."""
    a, b = method_info(name).links, method_info(other).links
    return (
        a.paper is not None
        and (a.paper, a.family) == (b.paper, b.family)
        and name.split("_")[0] == other.split("_")[0]
    )


def _result_rows(found: Sequence[tuple[Board, Record]]) -> dict[str, Any]:
    published = _published({board.track: board for board, _ in found}.values())
    columns = [
        column("dataset", "Dataset", "text", filter=True),
        column("ipc", "IPC", filter=True),
        column(
            "value",
            "Value",
            title="mean ± standard deviation over fresh networks; compare only within a board",
        ),
        column("metric", "Metric", "text", roomy=True, filter=True),
        column("published", "Published", roomy=True, title="numbers from papers, never ranked"),
        column("protocol", "Board", "text", filter=True),
        column("labels", "Labels", "text", roomy=True, filter=True),
        column("network", "Network", "text", roomy=True, filter=True),
        column("chosen", "Hyper-parameters", "text", extra=True, filter=True),
        column("entry", "Entry", "text", wide=True),
    ]
    rows = []
    for board, r in sorted(found, key=lambda f: (f[1].dataset, f[0].track, f[1].ipc, f[1].created, f[1].key)):
        t, place = board.track, board.places.get(r.key)
        value: dict[str, Any] = {"text": r.status, "sort": None, "mark": r.status}
        if r.status == "done":
            value = {"text": score_text(r), "sort": r.summary().mean} | ({"mark": place} if place else {})
            value |= {"narrow": t.metric} if t.metric != ACCURACY else {}  # where its column is hidden
        cells: Cells = [{"text": r.dataset, "href": f"../{dataset_url(r.dataset)}"}, r.ipc, value, t.metric]
        own = {"text": short_name(t.protocol), "title": t.protocol, "href": f"../boards/{t.slug}.html"}
        if text := board.settings.get(board.label_of.get(r.key, "")):
            own |= {"sub": text}
        cells += [published.get(r.key), own, t.label_mode]
        cells += [
            {"text": short_name(t.model), "title": t.model},
            board.origins[r.key].choice,
            {"text": r.digest[:8], "href": f"../{entry_url(r)}"},
        ]
        rows.append({"cells": cells})
    if not any(r.key in published for _, r in found):
        return {
            "columns": [c for c in columns if c["id"] != "published"],
            "rows": [{"cells": row["cells"][:4] + row["cells"][5:]} for row in rows],
        }
    return {"columns": columns, "rows": rows}


def _published(boards: Iterable[Board]) -> dict[str, str]:
    """Return the published numbers for the entries of boards, by record key."""
    found = {}
    for cell in (cell for board in boards for cells in board.rows.values() for cell in cells):
        if cell.record and cell.published:
            found[cell.record.key] = " / ".join(published_text(p.number) for p in cell.published)
    return found


def _commands(name: str, records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """Yield the command of the latest entry of each dataset that overrides can express."""
    done: set[str] = set()
    for record in sorted(records, key=lambda r: (r.created, r.key), reverse=True):
        if record.dataset not in done and record.status == "done" and record.config.get("set") is None:
            with suppress(ValueError):
                if command := run_command(record):
                    done.add(record.dataset)
                    yield f"{record.dataset}, IPC {record.ipc}, {record.protocol.name}:", command
    if not done and shipped_text("method", name):
        yield "With its default hyper-parameters:", f"dd-bench run method={name}"
