"""The data of a table in a page, without repetitions, so that pages of many entries stay small."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

DIGITS = 7
"""Significant digits of the numbers by which a page sorts, and of the ends of intervals."""
REPEATED = ("paper", "phone")
"""Texts of a cell that many other cells have, with other values of `text` or `sort`."""


def packed(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of a table; `unpacked`, and `read` in `site.js`, are the inverse, except for rounding.

    A cell that occurs several times is stored once, in `shared`, and `{"is": INDEX}` stands for it. `REPEATED` texts
    are in `papers` and `phones`, and a cell has their index. Any other cell with several fields is a list: the index of
    the names of its fields in `fields`, and their values.
    """
    repeated: dict[str, dict[str, int]] = {name: {} for name in REPEATED}
    cells = [[_short(cell, repeated) for cell in row["cells"]] for row in table["rows"]]
    texts = [[json.dumps(cell) if isinstance(cell, dict) else "" for cell in row] for row in cells]
    counts = Counter(text for row in texts for text in row)
    places = {text: i for i, text in enumerate(text for text, n in counts.items() if text and n > 1)}
    fields: dict[tuple[str, ...], int] = {}

    def listed(cell: Any) -> Any:
        if not isinstance(cell, dict):
            return cell
        return [fields.setdefault(tuple(cell), len(fields)), *cell.values()]

    rows = [
        {
            **row,
            "cells": [
                {"is": places[t]} if t in places else listed(c) for c, t in zip(own, names, strict=True)
            ],
        }
        for row, own, names in zip(table["rows"], cells, texts, strict=True)
    ]
    lists = {f"{name}s": list(found) for name, found in repeated.items()}
    shared = [json.loads(text) for text in places]
    return {**table, "rows": rows, "shared": shared, "fields": [list(names) for names in fields], **lists}


def unpacked(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table whose `packed` data are given."""
    shared, lists = data["shared"], {name: data[f"{name}s"] for name in REPEATED}

    def cell_of(cell: Any) -> Any:
        if isinstance(cell, list):
            cell = dict(zip(data["fields"][cell[0]], cell[1:], strict=True))
        cell = shared[cell["is"]] if isinstance(cell, dict) and "is" in cell else cell
        if not isinstance(cell, dict):
            return cell
        return {k: lists[k][v] if k in REPEATED else v for k, v in cell.items()}

    rows = [{**row, "cells": [cell_of(cell) for cell in row["cells"]]} for row in data["rows"]]
    return {
        name: rows if name == "rows" else v
        for name, v in data.items()
        if name not in ("shared", "fields", *(f"{repeated}s" for repeated in REPEATED))
    }


def _short(cell: Any, repeated: Mapping[str, dict[str, int]]) -> Any:
    if not isinstance(cell, dict):
        return cell
    short: dict[str, Any] = {
        k: float(f"{v:.{DIGITS}g}") if isinstance(v, float) else v for k, v in cell.items()
    }
    for name in REPEATED:
        if name in cell:
            short[name] = repeated[name].setdefault(cell[name], len(repeated[name]))
    return short
