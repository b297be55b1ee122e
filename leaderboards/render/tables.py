"""Tables: boards written as Markdown, CSV and LaTeX. The same entries give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dd_bench.records.record import Record
from dd_bench.runtime.files import write_atomic

from ..core.boards import REFERENCE, Board, Cell, boards
from ..core.entries import ACCURACY, BORROWED, load_entries
from ..core.published import PublishedSet, load_published
from .architectures import architecture_tables
from .continual import continual_tables
from .cost import cost_tables
from .cross_arch import cross_arch_tables
from .formatting import all_metrics_table, csv_text, entries_table, networks, number, printed
from .labels import label_tables
from .markup import LATEX, MARKDOWN, Markup, markdown_table

_MARKDOWN = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)
_LATEX = _MARKDOWN.overlay("<%", "%>", "<<", ">>", "<#", "#>")


def build(entries_dir: Path, published_dir: Path, out_dir: Path) -> list[Path]:
    """Writes every board as `<dataset>/<name>.md`, `.csv` and `.tex`, and the pages that are of all boards.

    Those are `index.md`, `labels.md`, `architectures.md`, `cross_arch.md`, `continual.md`, `cost.md`, `published.md`
    and `records.csv`.

    Returns:
        The files written. Nothing else in `out_dir` is touched.

    Raises:
        ValueError: an entry or a file of published numbers is refused, see `load_entries`, `load_published`.
    """
    published = load_published(published_dir)
    entries = load_entries(entries_dir)
    made = boards(entries, published)
    files = {
        "index.md": _index(made),
        "published.md": _published(published),
        **{f"{name}.md": _page(name, tables) for name, tables in pages(entries).items()},
        "records.csv": csv_text((board, record) for board in made for record in board.records),
    }
    for board in made:
        slug = board.track.path
        if f"{slug}.md" in files:
            raise ValueError(
                f"two boards would be written to {slug}.md: their names differ in punctuation alone"
            )
        files[f"{slug}.md"] = _board_markdown(board)
        files[f"{slug}.csv"] = csv_text((board, record) for record in board.records)
        files[f"{slug}.tex"] = latex(board)
    for name, text in files.items():
        write_atomic(out_dir / name, text.encode())
    return [out_dir / name for name in files]


def pages(entries: Sequence[Record]) -> dict[str, list[tuple[str, str]]]:
    """Returns the titles and tables, as Markdown, of the pages that are of several boards."""
    return {
        "labels": label_tables(entries),
        "architectures": architecture_tables(entries),
        "cross_arch": cross_arch_tables(entries),
        "continual": continual_tables(entries),
        "cost": cost_tables(entries),
    }


def table_of(board: Board) -> str:
    """Returns the table of a board, methods by IPC, as Markdown."""
    return markdown_table(*_rows(board, MARKDOWN))


def latex(board: Board) -> str:
    """Returns a board as a LaTeX table."""
    return _LATEX.get_template("board.tex.j2").render(_context(board, LATEX))


def _board_markdown(board: Board) -> str:
    context = _context(board, MARKDOWN)
    context["table"] = markdown_table(context["header"], context["rows"])
    pages = {"all_metrics_table": all_metrics_table(board), "entries_table": entries_table(board)}
    return _MARKDOWN.get_template("board.md.j2").render(context, **pages)


def _index(made: Sequence[Board]) -> str:
    header = [
        "Dataset",
        "Protocol",
        "Selection",
        "Labels",
        "Evaluator",
        "Network",
        "Metric",
        "Entries",
        "Warnings",
    ]
    rows = []
    for board in made:
        t, slug = board.track, board.track.path
        row = [
            t.dataset,
            f"{t.protocol} v{t.version}",
            t.selection,
            f"{t.label_mode} of {t.teachers}" if t.teachers else t.label_mode,
            t.evaluator,
            t.model,
            t.metric,
        ]
        row = [MARKDOWN.escape(x) for x in [*row, str(len(board.records)), "; ".join(board.warnings)]]
        rows.append([*row, f"[table]({slug}.md) [CSV]({slug}.csv) [LaTeX]({slug}.tex)"])
    table = markdown_table([*header, "Files"], rows, left=len(header) + 1) if rows else ""
    count = sum(len(board.records) for board in made)
    return _MARKDOWN.get_template("index.md.j2").render(table=table, entries=count, boards=len(made))


def _published(published: Sequence[PublishedSet]) -> str:
    tables = []
    for s in published:
        rows = [
            [c.method, str(c.ipc or "all"), printed(c) + "†" * (not c.verified), c.protocol, c.source]
            for c in s.cells
        ]
        rows = [[MARKDOWN.escape(x) for x in row] for row in rows]
        header = ["Method", "IPC", "Published", "Protocol", "Source"]
        tables.append((f"{s.dataset}, {s.model}", markdown_table(header, rows, left=5)))
    return _MARKDOWN.get_template("published.md.j2").render(tables=tables)


def _page(name: str, tables: Sequence[tuple[str, str]]) -> str:
    """Returns a page of titles and their tables."""
    told = [(MARKDOWN.escape(title), table) for title, table in tables]
    return _MARKDOWN.get_template(f"{name}.md.j2").render(tables=told)


def _context(board: Board, markup: Markup) -> dict[str, Any]:
    header, rows = _rows(board, markup)
    t = board.track
    title = f"{t.dataset}: {t.metric}{', %' if t.metric == ACCURACY else ''}"
    place = (
        f"Protocol {t.protocol} v{t.version}, selection {t.selection}, labels {t.label_mode}"
        f"{' of ' + t.teachers if t.teachers else ''}; "
        f"evaluator {t.evaluator}, network {t.model}."
    )
    return {
        "title": markup.escape(title),
        "place": markup.escape(place),
        "header": [markup.escape(x) for x in header],
        "rows": rows,
        "legend": legend_of(board, markup),
        "warnings": [markup.escape(x) for x in board.warnings],
        "slug": t.slug,
        "name": t.name,
    }


def _rows(board: Board, markup: Markup) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the rows; an IPC with published numbers gets a second column for them."""
    header = ["Method"]
    for column, ipc in enumerate(board.ipcs):
        header += [f"IPC {ipc}"] + ["published"] * board.quoted(column)
    rows = []
    for label, cells in board.rows.items():
        row = [markup.escape(label)]
        for column, cell in enumerate(cells):
            row += [_measured(cell, markup)] + [_quoted(cell, markup)] * board.quoted(column)
        rows.append(row)
    return header, rows


def _measured(cell: Cell, markup: Markup) -> str:
    if cell.record is None:
        return ""
    if cell.reason is not None:
        return markup.escape("–") + markup.mark.format(cell.reason)
    summary = cell.record.summary()
    text = markup.escape(number([summary.mean, summary.std], cell.record.main_metric))
    text = {"best": markup.best, "tied": markup.tied}.get(cell.place or "", "{}").format(text)
    text += markup.count.format(markup.escape(f"n={networks(cell.record)}"))
    return text + (markup.mark.format(markup.escape("‡")) if cell.place == "untested" else "")


def _quoted(cell: Cell, markup: Markup) -> str:
    marks = [q.letter + "†" * (not q.number.verified) for q in cell.quotes]
    pairs = zip(cell.quotes, marks, strict=True)
    return " / ".join(
        markup.escape(printed(q.number)) + markup.mark.format(markup.escape(mark)) for q, mark in pairs
    )


def legend_of(board: Board, markup: Markup) -> list[str]:
    """Returns the lines under the table: only those that this table needs."""
    places = set(board.places.values())
    escape = markup.escape

    def note(mark: str, text: str) -> str:
        return f"{markup.mark.format(escape(mark)).strip()} {escape(text)}"

    lines = [escape("mean ± std over n fresh networks; n=3×5: 3 synthetic sets, 5 networks on each")]
    if "best" in places:
        told = escape("not told from it (Welch's t test, Holm over all pairs of the column, family-wise 5 %)")
        lines.append(f"{markup.best.format('best')} mean of its column; {markup.tied.format('tied')}: {told}")
    if "untested" in places:
        lines.append(note("‡", "not ranked: no spread to test with, or nothing to be tested against"))
    if REFERENCE in board.rows:
        lines.append(escape(f"{REFERENCE}: the whole training set, not ranked; it has no IPC"))
    if BORROWED in board.rows:
        lines.append(escape(f"{BORROWED}: from the board of hard labels under the same protocol, not ranked"))
    if len({r.summary().num_sets for r in board.records if r.status == "done"} | {1}) > 1:
        lines.append(
            escape(
                "an entry with several sets is tested and given its interval over them, one with a single set over "
                "its networks: that says nothing of how another run of the method would come out"
            )
        )
    lines += [escape(text) for text in board.changed_knobs]
    lines += [escape(text) for text in board.variants]
    lines += [note(str(i), text) for i, text in enumerate(board.reasons, 1)]
    if board.sources:
        lines.append(
            escape(
                "published: printed in percent, each under a protocol of its own and by this network at its "
                "default width; never ranked"
            )
        )
    lines += [note(letter, f"{p.source}; {p.protocol}") for letter, p in board.sources.items()]
    if not all(p.verified for p in board.sources.values()):
        lines.append(note("†", "from memory, not re-read: check it before you cite it"))
    return lines
