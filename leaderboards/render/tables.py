"""Write boards as Markdown, CSV and LaTeX. The output is deterministic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dd_bench.records.record import Record
from dd_bench.runtime.files import write_atomic

from ..core.boards import Board, Cell, boards
from ..core.budget import size_text
from ..core.entries import (
    ACCURACY,
    FOREIGN_REFERENCE,
    HARD_LABEL_RANDOM,
    REFERENCE,
    REFERENCE_PROTOCOL,
    load_entries,
)
from ..core.hyperparameters import CHOSEN, MARKS, Origin
from ..core.published import PublishedSet, load_published
from ..core.ranking import MIN_SIZE
from ..core.verified import Verdict, verdicts
from .architectures import architecture_tables
from .continual import continual_tables
from .cost import cost_tables
from .cross_arch import cross_arch_tables
from .formatting import all_metrics_table, csv_text, entries_table, networks, number, printed
from .label_bytes import label_bytes_tables
from .labels import label_tables
from .markup import LATEX, MARKDOWN, Markup, markdown_table

TEST = "Games-Howell test of all entries at the same IPC against the best, family-wise error rate 5 %"
TOO_FEW = f"Not significantly below the best, but with fewer than {MIN_SIZE} values n is too small to tell"
UNTESTED = "Not ranked: its spread cannot be estimated, or there is no other entry to test against"
OVER_BUDGET = "Not ranked: its set stores more than IPC images, even at 32 bits per value"
SMALLEST_EXCESS = 1.05
"""Sets of this relative size or more are marked with it."""
FROM_MEMORY = "Quoted from memory, not checked against the source. Check it before citing."

_MARKDOWN = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)
_LATEX = _MARKDOWN.overlay("<%", "%>", "<<", ">>", "<#", "#>")


def build(entries_dir: Path, published_dir: Path, out_dir: Path) -> list[Path]:
    """Write each board as `<dataset>/<name>.md`, `.csv` and `.tex`, and the pages about all boards.

    These pages are `index.md`, `labels.md`, `label_bytes.md`, `architectures.md`, `cross_arch.md`, `continual.md`,
    `cost.md`, `published.md` and `records.csv`.

    Returns:
        The files written. Other files in `out_dir` are not changed.

    Raises:
        ValueError: an entry or a file of published numbers is invalid, see `load_entries`, `load_published`.
    """
    published = load_published(published_dir)
    entries = load_entries(entries_dir)
    known = verdicts(entries_dir.parent / "verified")
    all_boards = boards(entries, published)
    files = {
        "index.md": _index(all_boards),
        "published.md": _published(published),
        **{f"{name}.md": _page(name, tables) for name, tables in pages(entries).items()},
        "records.csv": csv_text((board, record) for board in all_boards for record in board.records),
    }
    for board in all_boards:
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
    return {
        "labels": label_tables(entries),
        "label_bytes": label_bytes_tables(entries),
        "architectures": architecture_tables(entries),
        "cross_arch": cross_arch_tables(entries),
        "continual": continual_tables(entries),
        "cost": cost_tables(entries),
    }


def table_of(board: Board) -> str:
    """Return the table of a board as Markdown, with methods as rows and IPCs as columns."""
    return markdown_table(*_rows(board, MARKDOWN))


def latex(board: Board) -> str:
    """Return a board as a LaTeX table."""
    return _LATEX.get_template("board.tex.j2").render(_context(board, LATEX))


def _board_markdown(board: Board, known: Mapping[str, Verdict]) -> str:
    context = _context(board, MARKDOWN)
    context["table"] = markdown_table(context["header"], context["rows"])
    more = {
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
        rows = [
            [c.method, str(c.ipc or "all"), printed(c) + "†" * (not c.verified), c.protocol, c.source]
            for c in s.cells
        ]
        rows = [[MARKDOWN.escape(x) for x in row] for row in rows]
        header = ["Method", "IPC", "Published", "Protocol", "Source"]
        tables.append((f"{s.dataset}, {s.model}", markdown_table(header, rows, left=5)))
    return _MARKDOWN.get_template("published.md.j2").render(tables=tables)


def _page(name: str, tables: Sequence[tuple[str, str]]) -> str:
    """Return a page of tables with titles."""
    escaped = [(MARKDOWN.escape(title), table) for title, table in tables]
    return _MARKDOWN.get_template(f"{name}.md.j2").render(tables=escaped)


def _context(board: Board, markup: Markup) -> dict[str, Any]:
    header, rows = _rows(board, markup)
    t = board.track
    title = f"{t.dataset}: {t.metric}{', %' if t.metric == ACCURACY else ''}"
    subtitle = (
        f"Protocol: {t.protocol} v{t.version}. Selection: {t.selection}. Labels: {t.label_mode}"
        f"{f' ({t.teachers})' if t.teachers else ''}. Evaluator: {t.evaluator}. Network: {t.model}."
    )
    return {
        "title": markup.escape(title),
        "subtitle": markup.escape(subtitle),
        "header": [markup.escape(x) for x in header],
        "rows": rows,
        "legend": legend_of(board, markup),
        "warnings": [markup.escape(x) for x in board.warnings],
        "slug": t.slug,
        "name": t.name,
    }


def _rows(board: Board, markup: Markup) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a board's table. Published numbers at an IPC have their own column."""
    header = ["Method"]
    for column, ipc in enumerate(board.ipcs):
        header += [f"IPC {ipc}"] + ["published"] * board.has_published(column)
    rows = []
    for label, cells in board.rows.items():
        row = [
            markup.escape(label) + (markup.mark.format(markup.escape("§")) if label in board.mixed else "")
        ]
        for column, cell in enumerate(cells):
            row += [_measured_text(cell, board, markup)]
            row += [_published_text(cell, markup)] * board.has_published(column)
        rows.append(row)
    return header, rows


def _measured_text(cell: Cell, board: Board, markup: Markup) -> str:
    if cell.record is None:
        return ""
    if cell.reason is not None:
        return markup.escape("–") + markup.mark.format(cell.reason)
    summary = cell.record.summary()
    text = markup.escape(number([summary.mean, summary.std], cell.record.main_metric))
    text = {"best": markup.best, "tied": markup.tied}.get(cell.place or "", "{}").format(text)
    text += markup.count.format(markup.escape(f"n={networks(cell.record)}"))
    marks = [{"untested": "‡", "too_few": "?", "over_budget": "!"}.get(cell.place or "", "")]
    size = board.sizes.get(cell.record.key, 0)
    marks += [size_text(size)] * (size >= SMALLEST_EXCESS)
    marks += [MARKS[origin.choice]] if (origin := board.origins.get(cell.record.key)) else []
    mark = ", ".join(filter(None, marks))
    return text + (markup.mark.format(markup.escape(mark)) if mark else "")


def _published_text(cell: Cell, markup: Markup) -> str:
    marks = [p.letter + "†" * (not p.number.verified) for p in cell.published]
    pairs = zip(cell.published, marks, strict=True)
    return " / ".join(
        markup.escape(printed(p.number)) + markup.mark.format(markup.escape(mark)) for p, mark in pairs
    )


def legend_of(board: Board, markup: Markup) -> list[str]:
    """Return the lines under the table. A mark is explained only if the table contains it."""
    places = set(board.places.values())
    escape = markup.escape

    def note(mark: str, text: str) -> str:
        return f"{markup.mark.format(escape(mark)).strip()} {escape(text)}"

    lines = [escape("Mean ± std over n fresh networks. n=3×5 means 3 synthetic sets with 5 networks each.")]
    if "best" in places:
        best, tied = markup.best.format("best"), markup.tied.format("tied")
        lines.append(
            f"{best}: highest mean at its IPC. {tied}: {escape(f'not significantly different from it ({TEST}).')}"
        )
    if "too_few" in places:
        lines.append(note("?", f"{TOO_FEW}."))
    if any(size >= SMALLEST_EXCESS for size in board.sizes.values()):
        lines.append(
            note(
                "N×",
                "The set with its labels has N times the stored bytes of IPC real samples per class, as random images "
                "with 8 bits per value. Sets without this mark have no more.",
            )
        )
    if "over_budget" in places:
        lines.append(note("!", f"{OVER_BUDGET}."))
    if "untested" in places:
        lines.append(note("‡", f"{UNTESTED}."))
    lines += _chosen_lines(board, note)
    if REFERENCE in board.rows:
        lines.append(
            escape(f"{REFERENCE}: trained on the whole training set. It has no IPC and is not ranked.")
        )
    if FOREIGN_REFERENCE in board.rows:
        lines.append(
            escape(
                f"{FOREIGN_REFERENCE}: trained on the whole training set under the protocol {REFERENCE_PROTOCOL}, from "
                "the board of that protocol. It has no IPC and is not ranked."
            )
        )
    if HARD_LABEL_RANDOM in board.rows:
        lines.append(
            escape(f"{HARD_LABEL_RANDOM}: from the hard-label board of the same protocol. It is not ranked.")
        )
    if len({r.summary().num_sets for r in board.records if r.status == "done"} | {1}) > 1:
        lines.append(
            escape(
                "Tests and intervals of an entry with several sets are over its sets. Those of an entry with a single "
                "set are over its networks and do not include the variation between runs of the method."
            )
        )
    if board.mixed:
        lines.append(note("§", "The settings of the row differ between IPCs, see below."))
    lines += [escape(text) for text in board.changed_hyperparameters]
    lines += [escape(text) for text in board.variants]
    lines += [note(str(i), text) for i, text in enumerate(board.reasons, 1)]
    if board.sources:
        lines.append(
            escape(
                "published: numbers from papers in percent, each measured under its own protocol with this network "
                "at its default width. They are never ranked."
            )
        )
    lines += [note(letter, f"{p.source}; {p.protocol}") for letter, p in board.sources.items()]
    if not all(p.verified for p in board.sources.values()):
        lines.append(note("†", FROM_MEMORY))
    return lines


def _chosen_lines(board: Board, note: Callable[[str, str], str]) -> list[str]:
    """Return the lines that explain how the hyper-parameters of the board's entries were chosen."""
    methods: dict[Origin, list[str]] = {}
    for record in board.records:
        if record.status == "done" and record.method != REFERENCE:
            methods.setdefault(board.origins[record.key], []).append(record.method)
    choices = {origin.choice for origin in methods}
    lines = [note(mark, f"{CHOSEN[c]}.") for c, mark in MARKS.items() if mark and c in choices]
    if lines:
        lines.append("Without such a mark: hyper-parameters of the paper or its code, except for the budget.")
    reasons = {o: sorted(set(names)) for o, names in methods.items() if o.choice == "test"}
    return lines + [note("T", f"{', '.join(names)}: {o.reason}.") for o, names in reasons.items()]
