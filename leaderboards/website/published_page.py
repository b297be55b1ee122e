"""Numbers from papers: a table of datasets, and a page for each dataset with its numbers, protocols and sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from ..core.published import PublishedSet
from ..render.formatting import published_text
from .addresses import published_url
from .rows import column, method_cell, short_name


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


def published_rows(published: Sequence[PublishedSet]) -> dict[str, Any]:
    """Return the table of the published numbers of one dataset."""
    columns = [
        column("network", "Network", "text", filter=True, wide=True),
        column("method", "Method", "text", filter=True),
        column("ipc", "IPC", filter=True),
        column("number", "Published, %"),
        column("protocol", "Protocol", "text", wide=True),
        column("source", "Source", "text", wide=True),
    ]
    rows = [
        {
            "cells": [
                {"text": short_name(one.model), "title": one.model},
                method_cell(cell.method, ""),
                cell.ipc or "all",
                {
                    "text": published_text(cell),
                    "sort": cell.mean,
                    "phone": f"{short_name(one.model)}; {cell.protocol}",
                },
                cell.protocol,
                cell.source,
            ]
        }
        for one in published
        for cell in one.cells
    ]
    return {"columns": columns, "rows": rows}
