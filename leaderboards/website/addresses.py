"""Paths of the pages of the site, relative to its root."""

from __future__ import annotations

import re

from dd_bench.records.record import Record
from dd_bench.runtime.files import content_key


def entry_url(record: Record) -> str:
    """Return the permanent path of an entry's page."""
    return f"entries/{record.digest[:16]}.html"


def method_url(method: str) -> str:
    """Return the path of a method's page."""
    return f"methods/{_file_name(method)}.html"


def dataset_url(dataset: str) -> str:
    """Return the path of a dataset's page."""
    return f"datasets/{_file_name(dataset)}.html"


def views_url(dataset: str, *, front: bool) -> str:
    """Return the path of the script with the boards of a dataset that the front page, or its own page, loads later."""
    return f"views/{'front/' * front}{_file_name(dataset)}.js"


def published_url(dataset: str) -> str:
    """Return the path of the page of a dataset's published numbers."""
    return f"published/{_file_name(dataset)}.html"


def _file_name(name: str) -> str:
    """Return a name as a file name. A name with other characters, or a long one, ends in a digest and stays unique."""
    safe = re.sub("[^A-Za-z0-9_-]+", "_", name)[:60]
    return safe if safe == name else f"{safe}-{content_key(name)[:8]}"
