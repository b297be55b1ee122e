"""Tables in a document: README, docs and plots are up to date, and the rest of a document does not change."""

from pathlib import Path

import pytest

from dd_bench.leaderboards.cli import main
from dd_bench.leaderboards.core.boards import boards
from dd_bench.leaderboards.core.entries import load_entries
from dd_bench.leaderboards.core.published import load_published
from dd_bench.leaderboards.render.markdown_blocks import embedded, named_tables
from dd_bench.leaderboards.render.plots import described, plots
from dd_bench.leaderboards.render.tables import table_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def two_methods(record, put):
    """One board of two methods."""
    entries = put(record("random", 10, [[0.50, 0.52, 0.54]]), record("dm", 10, [[0.70, 0.72, 0.74]]))
    return boards(load_entries(entries), [])


@pytest.fixture(scope="module")
def committed():
    return load_entries(ROOT / "leaderboards" / "entries")


def test_committed_plots_show_the_committed_entries(committed):
    """A file contains the digests of its entries. Each plot has a file, and there are no other files."""
    folder = ROOT / "leaderboards" / "plots"
    shown = {str(p.relative_to(folder).with_suffix("")): described(p) for p in folder.glob("*/*.svg")}
    expected = {plot.name: plot.description for plot in plots(committed)}
    assert shown == expected, "run dd-bench leaderboard plot, and delete the plots that it does not write"


def test_readme_and_docs_are_up_to_date(committed):
    published = load_published(ROOT / "leaderboards" / "published")
    tables = named_tables(boards(committed, published), committed)
    pages = [p for p in (ROOT / "docs" / "results").glob("*.md") if "<!-- table " in p.read_text()]
    assert len(pages) >= 5
    for page in (ROOT / "README.md", *pages):
        text = page.read_text()
        new, count = embedded(text, tables, str(page))
        assert count > 0
        assert new == text, f"{page}: run make tables"


def test_text_outside_the_blocks_does_not_change(two_methods):
    slug = two_methods[0].track.path
    text = f"before\n<!-- table {slug} -->\nold\n\nolder\n<!-- table end -->\nafter\n"
    new, count = embedded(text, named_tables(two_methods))
    assert new == f"before\n<!-- table {slug} -->\n{table_of(two_methods[0])}\n<!-- table end -->\nafter\n"
    assert "72.0 ± 2.0" in new and count == 1
    assert embedded(new, named_tables(two_methods)) == (new, 1), "a second time changes nothing"


def test_an_empty_block_is_filled(two_methods):
    text = "<!-- table continual -->\n<!-- table end -->\n<!-- table cost -->\n<!-- table end -->"
    new, count = embedded(text, named_tables(two_methods))
    assert count == 2 and new.count("<!-- table end -->") == 2 and "| dm" in new


def test_line_endings_do_not_change(two_methods):
    text = "a\r\n<!-- table cost --> \r\nold\r\n<!-- table end -->\r\nb"
    new, _ = embedded(text, named_tables(two_methods))
    assert "old" not in new and new.startswith("a\r\n<!-- table cost --> \r\n") and new.endswith("-->\r\nb")
    assert new.count("\n") == new.count("\r\n") > 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "has no table markers"),
        ("<!-- table cost -->\n", "followed by exactly one <!-- table end -->"),
        ("<!-- table end -->\n<!-- table cost -->\n", "followed by exactly one <!-- table end -->"),
        (
            "<!-- table cost -->\n<!-- table cost -->\n<!-- table end -->\n<!-- table end -->\n",
            "followed by exactly",
        ),
        ("<!-- table costs -->\n<!-- table end -->\n", "unknown table 'costs'. Similar names: cost"),
    ],
)
def test_invalid_documents_are_rejected(two_methods, text, message):
    with pytest.raises(ValueError, match=message):
        embedded(text, named_tables(two_methods))


def test_the_command(record, put, tmp_path, capsys):
    entries = put(record("random", 10, [[0.50, 0.52, 0.54]]), record("dm", 10, [[0.70, 0.72, 0.74]]))
    document = tmp_path / "paper.md"
    document.write_text("<!-- table cost -->\n<!-- table end -->\n")
    words = ["build", "--entries", str(entries), "--out", str(tmp_path / "tables"), "--into", str(document)]
    assert main(words) == 0 and "wrote 1 tables to" in capsys.readouterr().out
    assert "| dm" in document.read_text()
    document.write_text("plain")
    assert main(words) == 1 and "has no table markers" in capsys.readouterr().err
    assert document.read_text() == "plain"
    document.write_bytes(b"<!-- table cost -->\r\n<!-- table end -->\r\n")
    assert main(words) == 0 and document.read_bytes().count(b"\r\n") > 4
    second = tmp_path / "appendix.md"
    second.write_text("<!-- table cost -->\n<!-- table end -->\n")
    assert main([*words, str(second)]) == 0
    assert f"wrote 1 tables to {second}" in capsys.readouterr().out
    assert "| dm" in second.read_text()
    with pytest.raises(SystemExit):
        main([*words, "--site"])
    assert "--into and --site cannot be combined" in capsys.readouterr().err
