"""Every number of the results has a source: no number in the text of docs/results and of the README is typed by hand.

A number is filled in by `make tables`: inside a generated table, or between `<!-- value LINE -->` and `<!-- end -->`.
`test_pages.py` compares these with the entries. What remains may contain only the numbers of `SETTINGS`.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "results").glob("*.md"))
GENERATED = (
    r"^<!-- (table|summary|speed|claims) (?!end).*?^<!-- \1 end -->",
    r"<!-- value .+?<!-- end -->",
)
CODE = (r"^```.*?^```", r"^    \S.*$", r"`[^`]*`", r"\]\([^)]*\)", r"<!--.*?-->")
"""Code, targets of links, and comments."""
SETTINGS = (
    r"IPC \d+(?:(?:, \d+)* (?:and|or|to) \d+)?",  # names of columns and sets
    r"[Ww]idth \d+",
    r"n=\d+(?:×\d+)?",
    r"95 %\s+(?:confidence\s+)?(?:interval|CI)",
    r"8 bits?|8-bit",
    r"\dx\d pixels",
    r"4×",  # legend of the boards: float32 instead of 8 bits
    r"ImageNet-\d+K|CIFAR-\d+|PGD-\d+|ResNet-?\d+|VGG\d+|float\d+|#2",
)
"""Settings that identify what is described, and names."""


def typed_numbers(text: str) -> list[str]:
    """Return the lines of a page with a number that has no source, without what has one."""
    for pattern in (*GENERATED, *CODE):
        text = re.sub(
            pattern, "", text, flags=re.DOTALL | re.MULTILINE if pattern in GENERATED else re.MULTILINE
        )
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    for pattern in SETTINGS:
        text = re.sub(rf"(?<![\w.]){pattern}(?!\w)", "", text)
    return [line for line in text.splitlines() if re.search(r"(?<![A-Za-z_])\d", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_no_number_is_typed_by_hand(page):
    lines = typed_numbers(page.read_text())
    assert not lines, (
        "write <!-- value LINE -->...<!-- end --> (leaderboards/core/quantities.py):\n" + "\n".join(lines)
    )


def test_no_number_of_the_results_in_the_readme_is_typed_by_hand():
    text = (ROOT / "README.md").read_text()
    assert not typed_numbers(text[text.index("## Leaderboard") : text.index("## What is inside")])


def test_a_typed_number_is_found():
    text = "At IPC 1 and 10 MTT (n=5) is <!-- value gap x -->1.2<!-- end --> above DM.\n\n    dd-bench run ipc=10\n"
    assert typed_numbers(text) == []
    assert typed_numbers(text + "MTT reached 81.5 with `iterations=500`.") == ["MTT reached 81.5 with ."]
    assert typed_numbers("FTD .87 and\n**10 points**") == ["FTD .87 and", "**10 points**"]
    table = "<!-- table x -->\n| 1.5 |\n<!-- table end -->\n"
    assert typed_numbers(table) == [] and typed_numbers("| 1.5 |") == ["| 1.5 |"]


def test_no_line_begins_with_a_generated_number():
    """A comment at the start of a line is a block of HTML in Markdown: it ends the list or paragraph around it."""
    for page in (*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"):
        broken = re.findall(r"^\s*<!-- value .*", page.read_text(), flags=re.MULTILINE)
        assert not broken, f"{page.relative_to(ROOT)}: move a word before the comment:\n" + "\n".join(broken)
