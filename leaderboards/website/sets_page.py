"""The table of all sets: pictures, accuracy, size, licence, and the lines of Python that load a set."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from statistics import fmean
from typing import Any

from markupsafe import Markup

from dd_bench.records.config_diff import STORED
from dd_bench.records.intervals import std
from dd_bench.records.record import Record
from dd_bench.synthetic.card import CARD, TENSORS
from dd_bench.synthetic.licences import OTHER, UNKNOWN, hub_licence

from ..core.entries import ACCURACY, has_stored_precision
from ..core.selectors import MAIN_EVALUATORS
from ..render.formatting import number
from .addresses import entry_url
from .cells import Cells, column, is_constant, method_cell
from .sets import LOADER, KnownSet

FILES = {"tensors": TENSORS, "card": CARD}
"""Links in the row of a set, and the files of its folder."""


def set_rows(known: Sequence[KnownSet], records: Sequence[Record]) -> dict[str, Any]:
    """Return the table of all sets, and the lines that load one.

    `set` of a row is the name of its folder, which is also the `*` in its picture, and its digest.
    """
    by_set: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(
        records, key=lambda r: (r.evaluator.partition("(")[0] not in MAIN_EVALUATORS, r.created, r.key)
    ):
        for digest in record.set_digests:
            by_set[digest].append(record)
    value = "of fresh networks on this set, in its first entry; compare only within a board"
    columns = [
        column("method", "Method", "text", filter=True, title="links to the first entry of the set"),
        column("dataset", "Dataset", "text", filter=True),
        column("ipc", "IPC", filter=True),
        column("value", "Value", title=value),
        column("load", "Load", "text", title="copies three lines of Python that load the set"),
        column("bytes", "Bytes", wide=True, title="stored bytes of images or graphs, labels and decoders"),
        column("licence", "Licence of the data", "text", wide=True, filter=True),
        column(
            "knobs",
            "Changed",
            "text",
            roomy=True,
            title="hyper-parameters that differ from the YAML defaults",
        ),
        column("entries", "Entries", wide=True, title="number of entries evaluated on the set"),
        column("files", "Files", "text", wide=True, title="card.json has the hashes of all other files"),
    ]
    rows = []
    for one in sorted(known, key=_order):
        entries, size = by_set[one.digest], sum(one.card.stored_bytes.values())
        has_page = bool(entries) and not has_stored_precision(entries[0])
        link = method_cell(one.card.method, entry_url(entries[0]) if has_page else "")
        if precision := _precision(one.card.config.get(STORED)):
            link |= {"sub": precision}
        link |= {"picture": one.picture.file.replace(one.name, "*")} if one.picture else {}
        cells: Cells = [link, one.card.dataset, one.card.ipc]
        cells += [_value(one.digest, entries[0]) if entries else None]
        cells += [{"text": "", "load": True}, {"text": f"{size:,}", "sort": size}]
        cells += [_licence(one.card.licence), _knobs(one.changed), len(entries), _files(one)]
        rows.append({"cells": cells, "set": [one.name, one.digest[:16]]})
    base = known[0].url.rpartition("/")[0] if known else ""
    return {"columns": columns, "rows": rows, "loader": LOADER, "base": base, "files": FILES}


def set_list(known: Sequence[KnownSet]) -> Markup:
    """Return the sets as an HTML list with links to their cards, for browsers without JavaScript."""
    texts = (
        (f"{one.card.method} on {one.card.dataset}, IPC {one.card.ipc}", f"sets/{one.name}/{CARD}", one)
        for one in known
    )
    items = (
        f'<li><a href="{escape(card)}">{escape(text)}</a></li>'
        if card in one.files
        else f"<li>{escape(text)}</li>"
        for text, card, one in texts
    )
    return Markup(f"<ul>{''.join(items)}</ul>")


def _order(one: KnownSet) -> tuple[bool, str, int, str, str]:
    """Return a sort key: images first, then by dataset, IPC and method."""
    return one.samples != "images", one.card.dataset, one.card.ipc, one.card.method, one.name


def _value(digest: str, record: Record) -> dict[str, Any] | None:
    """Return the mean of the networks that an entry trained on one set, with its protocol."""
    if record.status != "done":
        return {"text": record.status, "sort": None, "mark": record.status}
    at = list(dict.fromkeys(record.set_digests)).index(digest)
    values, metric = record.by_set(record.main_metric)[at], record.main_metric
    mean = fmean(values)
    spread = std(values) if len(values) > 1 else None
    text = f"{number([mean], metric)}, all equal" if is_constant(spread) else number([mean, spread], metric)
    unit = "accuracy, %" if metric == ACCURACY else metric
    return {"text": text, "sort": mean, "sub": f"{unit}, {re.split(r'[(]', record.protocol.name)[0]}"}


def _precision(stored: Any) -> str:
    """Return the chosen precision of a set, e.g. `2 bits per value, range per image`; '' for other sets."""
    return str(stored.get("precision") or "") if isinstance(stored, dict) else ""


def _licence(text: str) -> dict[str, str]:
    """Return the identifier of a licence on the Hugging Face Hub, or the start of its text; the whole text is a tip."""
    known = hub_licence(text)
    return {"text": text.partition(";")[0] if known in (OTHER, UNKNOWN) else known, "title": text}


def _knobs(changed: Sequence[str]) -> Any:
    """Return changed hyper-parameters; more than two are a number that opens to all."""
    text = ", ".join(changed)
    return {"text": f"{len(changed)} values", "more": text} if len(changed) > 2 else text


def _files(one: KnownSet) -> dict[str, Any]:
    """Return which of `FILES` the site has, or the name of the set's folder if it has none."""
    found = [text for text, name in FILES.items() if f"sets/{one.name}/{name}" in one.files]
    return {"text": "", "files": found} if found else {"text": one.name}
