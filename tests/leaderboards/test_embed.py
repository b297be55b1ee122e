"""Tables inside a document: those of README and docs are up to date, and nothing else of a document changes."""

from pathlib import Path

import pytest

from dd_bench.leaderboards.cli import main
from dd_bench.leaderboards.core.boards import boards
from dd_bench.leaderboards.core.entries import load_entries
from dd_bench.leaderboards.core.published import load_published
from dd_bench.leaderboards.render.markdown_blocks import embedded
from dd_bench.leaderboards.render.tables import table_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def made(record, put):
    """One board of two methods."""
    entries = put(record("random", 10, [[0.50, 0.52, 0.54]]), record("dm", 10, [[0.70, 0.72, 0.74]]))
    return boards(load_entries(entries), [])


def test_tables_of_readme_and_docs_are_those_of_the_entries():
    published = load_published(ROOT / "leaderboards" / "published")
    current = boards(load_entries(ROOT / "leaderboards" / "entries"), published)
    pages = [p for p in (ROOT / "docs" / "results").glob("*.md") if "<!-- table " in p.read_text()]
    assert len(pages) >= 5
    for page in (ROOT / "README.md", *pages):
        text = page.read_text()
        new, count = embedded(text, current, str(page))
        assert count > 0
        assert new == text, f"{page}: run make tables"


def test_what_is_outside_stays(made):
    slug = made[0].track.path
    text = f"before\n<!-- table {slug} -->\nold\n\nolder\n<!-- table end -->\nafter\n"
    new, count = embedded(text, made)
    assert new == f"before\n<!-- table {slug} -->\n{table_of(made[0])}\n<!-- table end -->\nafter\n"
    assert "72.0 ± 2.0" in new and count == 1
    assert embedded(new, made) == (new, 1), "a second time changes nothing"


def test_a_block_without_content(made):
    text = "<!-- table continual -->\n<!-- table end -->\n<!-- table cost -->\n<!-- table end -->"
    new, count = embedded(text, made)
    assert count == 2 and new.count("<!-- table end -->") == 2 and "| dm" in new


def test_ends_of_lines_are_kept(made):
    text = "a\r\n<!-- table cost --> \r\nold\r\n<!-- table end -->\r\nb"
    new, _ = embedded(text, made)
    assert "old" not in new and new.startswith("a\r\n<!-- table cost --> \r\n") and new.endswith("-->\r\nb")
    assert new.count("\n") == new.count("\r\n") > 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "asks for no table"),
        ("<!-- table cost -->\n", "wants an <!-- table end -->"),
        ("<!-- table end -->\n<!-- table cost -->\n", "wants an <!-- table end -->"),
        ("<!-- table cost -->\n<!-- table cost -->\n<!-- table end -->\n<!-- table end -->\n", "wants an"),
        ("<!-- table costs -->\n<!-- table end -->\n", "no table 'costs'. Near to it: cost"),
    ],
)
def test_what_cannot_be_filled_in_is_refused(made, text, message):
    with pytest.raises(ValueError, match=message):
        embedded(text, made)


def test_the_command(record, put, tmp_path, capsys):
    entries = put(record("random", 10, [[0.50, 0.52, 0.54]]), record("dm", 10, [[0.70, 0.72, 0.74]]))
    document = tmp_path / "paper.md"
    document.write_text("<!-- table cost -->\n<!-- table end -->\n")
    words = ["build", "--entries", str(entries), "--out", str(tmp_path / "tables"), "--into", str(document)]
    assert main(words) == 0 and "1 tables in" in capsys.readouterr().out
    assert "| dm" in document.read_text()
    document.write_text("plain")
    assert main(words) == 1 and "asks for no table" in capsys.readouterr().err
    assert document.read_text() == "plain"
    document.write_bytes(b"<!-- table cost -->\r\n<!-- table end -->\r\n")
    assert main(words) == 0 and document.read_bytes().count(b"\r\n") > 4
    second = tmp_path / "appendix.md"
    second.write_text("<!-- table cost -->\n<!-- table end -->\n")
    assert main([*words, str(second)]) == 0
    assert f"1 tables in {second}" in capsys.readouterr().out
    assert "| dm" in second.read_text()
    with pytest.raises(SystemExit):
        main([*words, "--site"])
    assert "one at a time" in capsys.readouterr().err
