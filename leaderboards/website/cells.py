"""Cells and columns that the tables of several pages share. A table is plain data, which the page sorts and filters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import Any

from markupsafe import Markup

from dd_bench.records.record import Record

from ..core.entries import REFERENCE, Track
from ..core.method_info import links_of
from ..render.formatting import number

MAX_CELL = 30
"""Maximum length of a name in the table of boards."""

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


def ipc_cell(record: Record) -> Any:
    """Return the IPC of a record; `all` for the whole training set, which is last in the order."""
    return {"text": "all", "sort": 1e9} if record.method == REFERENCE else record.ipc


def score_text(record: Record) -> str:
    """Return the mean and standard deviation of the main metric. `all equal` stands for a standard deviation of 0."""
    s = record.summary()
    if is_constant(s.std):
        return f"{number([s.mean], record.main_metric)}, all equal"
    return number([s.mean, s.std], record.main_metric)


def is_constant(std: float | None) -> bool:
    """Return whether a standard deviation is 0, except for rounding."""
    return std is not None and std < 1e-9


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
