"""Write boards as Markdown, CSV and LaTeX. The output is deterministic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dd_bench.records.record import Record
from dd_bench.runtime.files import write_atomic

from ..core.boards import Board, boards
from ..core.entries import ACCURACY, has_stored_precision, load_entries
from ..core.published import PublishedSet, load_published
from ..core.verified import Verdict, verdicts
from .architectures import architecture_tables
from .bits import precision_tables
from .cells import Style, columns, table_rows
from .continual import continual_tables
from .cost import cost_tables
from .cross_arch import cross_arch_tables
from .equal_bits import equal_bits_tables
from .formatting import all_metrics_table, csv_text, entries_table, published_text
from .label_bits import label_bits_tables
from .labels import label_tables
from .legend import legend_of
from .linear_probe import linear_probe_tables
from .markup import LATEX, MARKDOWN, Markup, markdown_table
from .mean_ranks import rank_tables

_MARKDOWN = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)
_LATEX = _MARKDOWN.overlay("<%", "%>", "<<", ">>", "<#", "#>")


def build(entries_dir: Path, published_dir: Path, out_dir: Path) -> list[Path]:
    """Write each board as `<dataset>/<name>.md`, `.csv` and `.tex`, and the pages about all boards.

    Boards of `labels-400` have no files; their entries are in `label_bits.md`.

    These pages are `index.md`, `labels.md`, `label_bits.md`, `architectures.md`, `cross_arch.md`, `continual.md`,
    `linear_probe.md`, `cost.md`, `bits.md`, `ranks.md`, `published.md` and `records.csv`.

    Returns:
        The files written. Other files in `out_dir` are not changed.

    Raises:
        ValueError: an entry or a file of published numbers is invalid, see `load_entries`, `load_published`.
    """
    published = load_published(published_dir)
    entries = load_entries(entries_dir)
    known = verdicts(entries_dir.parent / "verified")
    all_boards = boards(entries, published)
    own_pages = [board for board in all_boards if not board.track.compares_labels]
    files = {
        "index.md": _index(own_pages),
        "published.md": _published(published),
        **{f"{name}.md": _page(name, tables) for name, tables in pages(entries).items()},
        "ranks.md": _page("ranks", rank_tables(own_pages)),
        "records.csv": csv_text((board, record) for board in all_boards for record in board.records),
    }
    for board in own_pages:
        path = board.track.path
        if f"{path}.md" in files:
            raise ValueError(
                f"two boards would have the file {path}.md: their names differ only in punctuation"
            )
        files[f"{path}.md"] = _board_markdown(board, known)
        files[f"{path}.csv"] = csv_text((board, record) for record in board.records)
        files[f"{path}.tex"] = latex(board)
    for name, text in files.items():
        write_atomic(out_dir / name, text.encode())
    return [out_dir / name for name in files]


def pages(entries: Sequence[Record]) -> dict[str, list[tuple[str, str]]]:
    """Return the titles and Markdown tables of the pages that combine several boards."""
    plain = [r for r in entries if not has_stored_precision(r)]
    return {
        "labels": label_tables(plain),
        "label_bits": label_bits_tables(plain),
        "architectures": architecture_tables(plain),
        "cross_arch": cross_arch_tables(plain),
        "continual": continual_tables(plain),
        "linear_probe": linear_probe_tables(plain),
        "cost": cost_tables(entries),
        "bits": [*precision_tables(entries), *equal_bits_tables(entries)],
    }


def table_of(board: Board) -> str:
    """Return the table of a board as Markdown, with methods as rows and IPCs as columns."""
    found = columns(board, Style())
    return markdown_table(
        ["Method", *(c.title for c in found)], table_rows(list(board.rows), found, Style(), MARKDOWN)
    )


def latex(board: Board) -> str:
    """Return a board as a LaTeX table."""
    return latex_table(**_context(board, LATEX))


def latex_table(
    *,
    title: str,
    subtitle: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    legend: Sequence[str],
    warnings: Sequence[str],
    slug: str,
    groups: Sequence[tuple[str, int]] = (),
    environment: str = "table",
    size: str = "",
    command: str = "dd-bench leaderboard build",
) -> str:
    """Return a LaTeX table with caption and label. All texts except the last four are escaped.

    Args:
        title: first sentence of the caption, without a full stop.
        subtitle: the rest of the caption.
        header: one title for each column.
        rows: the cells, with the label of the row in front.
        legend: lines below the table.
        warnings: sentences without a full stop at the end of the caption.
        slug: the label is `tab:SLUG`.
        groups: a second header line above the first: titles, and the number of columns below each.
        environment: `table`, or `table*` for both columns of a page.
        size: command for the size of the text, such as `footnotesize`; that of the document by default.
        command: the command that writes the table.
    """
    ends = list(accumulate((width for _, width in groups), initial=1))
    rules = [f"{start + 1}-{end}" for start, end in pairwise(ends)]
    return _LATEX.get_template("board.tex.j2").render(
        title=title, subtitle=subtitle, header=header, rows=rows, legend=legend, warnings=warnings, slug=slug,
        groups=groups, rules=rules, environment=environment, size=size, command=" ".join(command.split()),
    )  # fmt: skip


def _board_markdown(board: Board, known: Mapping[str, Verdict]) -> str:
    context = _context(board, MARKDOWN)
    more = {
        "table": markdown_table(context["header"], context["rows"]),
        "name": board.track.name,
        "all_metrics_table": all_metrics_table(board),
        "entries_table": entries_table(board, known),
        "has_verdicts": any(r.digest in known for r in board.records),
    }
    return _MARKDOWN.get_template("board.md.j2").render(context, **more)


def _index(all_boards: Sequence[Board]) -> str:
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
    for board in all_boards:
        t, path = board.track, board.track.path
        row = [
            t.dataset,
            f"{t.protocol} v{t.version}",
            t.selection,
            f"{t.label_mode} ({t.teachers})" if t.teachers else t.label_mode,
            t.evaluator,
            t.model,
            t.metric,
        ]
        row = [MARKDOWN.escape(x) for x in [*row, str(len(board.records)), "; ".join(board.warnings)]]
        rows.append([*row, f"[table]({path}.md) [CSV]({path}.csv) [LaTeX]({path}.tex)"])
    table = markdown_table([*header, "Files"], rows, left=len(header) + 1) if rows else ""
    count = sum(len(board.records) for board in all_boards)
    return _MARKDOWN.get_template("index.md.j2").render(table=table, entries=count, boards=len(all_boards))


def _published(published: Sequence[PublishedSet]) -> str:
    tables = []
    for s in published:
        rows = [[c.method, c.budget, published_text(c), c.protocol, c.source] for c in s.cells]
        rows = [[MARKDOWN.escape(x) for x in row] for row in rows]
        header = ["Method", "IPC", "Published", "Protocol", "Source"]
        tables.append((f"{s.dataset}, {s.model}", markdown_table(header, rows, left=5)))
    return _MARKDOWN.get_template("published.md.j2").render(tables=tables)


def _page(name: str, tables: Sequence[tuple[str, str]]) -> str:
    """Return a page of tables with titles."""
    escaped = [(MARKDOWN.escape(title), table) for title, table in tables]
    return _MARKDOWN.get_template(f"{name}.md.j2").render(tables=escaped)


def _context(board: Board, markup: Markup) -> dict[str, Any]:
    found = columns(board, Style())
    t = board.track
    title = f"{t.dataset}: {t.metric}{', %' if t.metric == ACCURACY else ''}"
    subtitle = (
        f"Protocol: {t.protocol} v{t.version}. Selection: {t.selection}. Labels: {t.label_mode}"
        f"{f' ({t.teachers})' if t.teachers else ''}. Evaluator: {t.evaluator}. Network: {t.model}."
    )
    return {
        "title": markup.escape(title),
        "subtitle": markup.escape(subtitle),
        "header": ["Method", *(markup.escape(c.title) for c in found)],
        "rows": table_rows(list(board.rows), found, Style(), markup),
        "legend": legend_of(board, markup),
        "warnings": [markup.escape(x) for x in board.warnings],
        "slug": t.slug,
    }
