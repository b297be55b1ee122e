"""The pages of the committed entries fit the budget of the site, so that they are fast on a slow connection."""

import re
from pathlib import Path

import pytest

from dd_bench.leaderboards.core.entries import load_entries
from dd_bench.leaderboards.core.published import load_published
from dd_bench.leaderboards.website.pages import TEMPLATES, Pages

ROOT = Path(__file__).parents[2] / "leaderboards"
BUDGET = 300_000
"""Bytes of a page with its style sheet and scripts, without pictures. The plot library is loaded for visible plots."""


def weight(page):
    text = page.read_text()
    loaded = re.findall(r'<(?:script src|link rel="stylesheet" href)="(?:\.\./)*([^"]+)"', text)
    assert "site.css" in loaded and "plotly.min.js" not in loaded
    return page.stat().st_size + sum((TEMPLATES / name).stat().st_size for name in loaded)


def twice(entries):
    """Return the entries, and all of them again under another name of the method."""
    return [
        *entries,
        *(r.model_copy(update={"method": f"{r.method}_b", "key": f"{r.key}b"}) for r in entries),
    ]


@pytest.mark.slow
def test_pages_fit_the_budget_with_twice_as_many_entries(tmp_path):
    """The overviews and the pages of datasets. Pages of boards, methods and entries are smaller."""
    pages = Pages(
        tmp_path, twice(load_entries(ROOT / "entries")), load_published(ROOT / "published"), ROOT / "verified"
    )
    pages.copy_sets(ROOT / "sets", "https://host/sets")
    pages.sets |= {f"b{digest}": one._replace(digest=f"b{digest}") for digest, one in pages.sets.items()}
    for write in (pages._front_page, pages._overviews, pages._datasets):
        write()
    weights = {page.relative_to(tmp_path).as_posix(): weight(page) for page in tmp_path.rglob("*.html")}
    assert {"index.html", "sets.html", "entries.html", "datasets/fashion_mnist.html"} <= weights.keys()
    assert {name: bytes_ for name, bytes_ in weights.items() if bytes_ >= BUDGET} == {}
