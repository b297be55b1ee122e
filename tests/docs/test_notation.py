"""± is a standard deviation on every page with results, and one sentence says so. Differences have an interval."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "results").glob("*.md"))
NOTATION = (
    "± is a standard deviation, and [a, b] is a 95 % confidence interval "
    "([notation](../concepts/statistics.md#notation))."
)
GENERATED = r"^<!-- (table|summary|speed|claims) (?!end).*?^<!-- \1 end -->"


def other_meanings(text: str) -> Iterator[str]:
    """Yield the parts of a page in which ± may be something else than a standard deviation."""
    yield from re.findall(r"half[ -](?:of|the|width).{0,30}?(?:interval|CI)|half-widths?", text, re.DOTALL)
    yield from (
        found[0]
        for found in re.finditer(r"<!-- value (\w+) [^>]*-->[^<]*±[^<]*<!-- end -->", text)
        if found[1] != "published"
    )
    text = re.sub(GENERATED, "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!-- value .+?<!-- end -->|`[^`]*`", "", text, flags=re.DOTALL)
    text = " ".join(text.split()).replace(NOTATION, "")
    yield from re.findall(r".{0,20}±.{0,20}", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_plus_minus_has_one_meaning(page):
    text = page.read_text()
    assert list(other_meanings(text)) == []
    assert " ".join(text.split()).count(NOTATION) == ("±" in text or "95 % interval" in text), NOTATION


def test_the_readme_and_the_performance_pages_agree():
    text = (ROOT / "README.md").read_text()
    assert text[text.index("## Leaderboard") :].count("± is a standard deviation") == 1
    pages = [ROOT / "README.md", *(ROOT / "docs" / "performance").glob("*.md")]
    assert not [page for page in pages if re.search(r"half[ -](?:of the 95|width)", page.read_text())]


@pytest.mark.parametrize(
    "text",
    [
        "Values are means with 95 % half-widths.",
        "± is half of the 95 % interval",
        "DM is <!-- value diff digits dc-300 dm vs random -->2.0 ± 1.3<!-- end --> points better.",
        "FTD is above DM (2.0 ± 1.3).",
    ],
)
def test_another_meaning_is_found(text):
    assert list(other_meanings(text))
