"""Numbers from papers: a table of datasets, and a page for each dataset with its numbers, protocols and sources."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from ..core.published import PublishedSet
from ..render.formatting import published_text
from .addresses import method_url, published_url
from .cells import column, method_cell, short_name


def published_index(published: Sequence[PublishedSet]) -> dict[str, Any]:
    """Return the table of the datasets with published numbers."""
    columns = [
        column("dataset", "Dataset", "text"),
        column("numbers", "Numbers"),
        column("methods", "Methods"),
        column("networks", "Networks", "text", wide=True, long=True),
    ]
    rows = [
        {
            "cells": [
                {"text": dataset, "href": published_url(dataset)},
                sum(len(one.cells) for one in found),
                len({cell.method for one in found for cell in one.cells}),
                ", ".join(one.model for one in found),
            ]
        }
        for dataset, found in by_dataset(published)
    ]
    return {"columns": columns, "rows": rows}


def by_dataset(published: Sequence[PublishedSet]) -> Iterator[tuple[str, list[PublishedSet]]]:
    """Yield each dataset with its files of published numbers."""
    for dataset, found in groupby(
        sorted(published, key=attrgetter("dataset", "model")), attrgetter("dataset")
    ):
        yield dataset, list(found)


def published_notes(published: Sequence[PublishedSet]) -> dict[str, str]:
    """Return a number for each protocol and source of one dataset, `P1` or `S1`, by its text."""
    cells = [cell for one in published for cell in one.cells]
    protocols, sources = (
        {f(cell): None for cell in cells} for f in (attrgetter("protocol"), attrgetter("source"))
    )
    return {
        text: f"{letter}{i}"
        for letter, texts in (("P", protocols), ("S", sources))
        for i, text in enumerate(texts, 1)
    }


def published_rows(
    published: Sequence[PublishedSet], notes: Mapping[str, str], methods: Collection[str]
) -> dict[str, Any]:
    """Return the table of the published numbers of one dataset, with its `published_notes`. `methods` have a page."""
    columns = [
        column("method", "Method", "text", filter=True),
        column("network", "Network", "text", filter=True, medium=True),
        column("ipc", "IPC", filter=True),
        column("number", "Published, %"),
        column("protocol", "Protocol", "text", filter=True, title="listed below the table"),
        column("source", "Source", "text", medium=True, filter=True, title="listed below the table"),
    ]
    rows = [
        {
            "cells": [
                method_cell(cell.method, f"../{method_url(cell.method)}" if cell.method in methods else ""),
                {"text": short_name(one.model), "title": one.model},
                cell.budget if cell.nodes else cell.ipc or cell.budget,
                {
                    "text": published_text(cell),
                    "sort": cell.mean,
                    "phone": f"{short_name(one.model)}, {notes[cell.source]}",
                },
                *(
                    {"text": notes[text], "title": text, "href": f"#{notes[text]}"}
                    for text in (cell.protocol, cell.source)
                ),
            ]
        }
        for one in published
        for cell in one.cells
    ]
    return {"columns": columns, "rows": rows}
