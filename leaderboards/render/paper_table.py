"""Tables for a paper: selected methods, IPCs, metrics and boards, as LaTeX, Markdown, CSV or a pandas frame.

In Python:

    from dd_bench.leaderboards import paper_table

    table = paper_table("runs/records", methods=["random", "dm"], dataset=["digits"])
    print(table.latex())
    table.frame()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from dd_bench.records.record import Record

from ..core.board_selection import BoardFilter, check_count, narrowed, select_boards, unknown_name
from ..core.boards import Board, boards
from ..core.entries import ACCURACY, ROOT, Track, load_entries
from ..core.published import load_published
from .cells import COSTS, Column, Spread, Style, columns, table_rows
from .formatting import networks
from .frame import frame_of
from .legend import Highlight, joint_legend
from .markup import LATEX, MARKDOWN, Markup, markdown_table
from .tables import latex_table

PUBLISHED = Path(__file__).resolve().parents[1] / "published"
MAX_BOARDS = 8
"""Maximum number of boards in one table."""
MAX_SMALL = 4
"""Maximum number of columns of a LaTeX table in `small`; others are in `footnotesize`."""
_FIELDS = {
    "dataset": "Dataset",
    "protocol": "Protocol",
    "selection": "Selection",
    "label_mode": "Labels",
    "teachers": "Teachers",
    "evaluator": "Evaluator",
    "model": "Network",
    "metric": "Metric",
}
"""Properties of a board and their names in a caption."""


@dataclass(frozen=True)
class PaperTable:
    """A table of one board, or of several boards side by side. Its layout applies to LaTeX and Markdown."""

    boards: Sequence[Board]
    style: Style
    transposed: bool = False
    command: str = "dd-bench leaderboard table"

    def latex(self, wide: bool = False) -> str:
        """Return a `table` environment for booktabs, or `table*` for both columns of a page if `wide`."""
        titles, rows, groups = self._grid(LATEX)
        title, *rest = self._caption()
        return latex_table(
            title=LATEX.escape(title),
            subtitle=LATEX.escape(" ".join(f"{sentence}." for sentence in rest)),
            header=titles,
            rows=rows,
            legend=self._legend(LATEX),
            warnings=[LATEX.escape(text) for text in self._warnings()],
            slug=self.boards[0].track.slug if len(self.boards) == 1 else "boards",
            groups=groups,
            environment="table*" if wide else "table",
            size="small" if len(titles) <= MAX_SMALL else "footnotesize",
            command=self.command,
        )

    def markdown(self) -> str:
        """Return caption, table and notes as Markdown."""
        titles, rows, groups = self._grid(MARKDOWN)
        names = [name for name, width in groups for _ in range(width)]
        if names:
            titles = [titles[0], *(f"{n}, {t}" for n, t in zip(names, titles[1:], strict=True))]
        caption = MARKDOWN.escape(" ".join(f"{sentence}." for sentence in self._caption()))
        warnings = [f"> **Warning:** {MARKDOWN.escape(text)}." for text in self._warnings()]
        notes = "\n".join(f"- {line}" for line in self._legend(MARKDOWN))
        return "\n\n".join([caption, *warnings, markdown_table(titles, rows), notes]).strip() + "\n"

    def frame(self) -> Any:
        """Return the numbers as a pandas frame with one line per board, row, IPC and metric; see `frame_of`."""
        return frame_of(self.boards, self.style)

    def csv(self) -> str:
        """Return the lines of `frame` as CSV, with unrounded numbers."""
        text: str = self.frame().to_csv(index=False, lineterminator="\n")
        return text

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def _grid(self, markup: Markup) -> tuple[list[str], list[list[str]], list[tuple[str, int]]]:
        """Return the titles of the columns, the rows, and the title and width of the groups of columns."""
        style = replace(self.style, counts=self.style.counts and self._common_count() is None)
        found = [columns(board, style) for board in self.boards]
        flat: list[Column] = [column for part in found for column in part]
        labels = list(dict.fromkeys(label for board in self.boards for label in board.rows))
        rows = table_rows(labels, flat, style, markup)
        titles = [markup.escape(column.title) for column in flat]
        names = [markup.escape(name) for name in self._names()]
        if not self.transposed:
            groups = [(name, len(part)) for name, part in zip(names, found, strict=True)] if names else []
            return ["Method", *titles], rows, groups
        if names:
            every = [name for name, part in zip(names, found, strict=True) for _ in part]
            titles = [f"{name}, {title}" for name, title in zip(every, titles, strict=True)]
        turned = [list(line) for line in zip(*rows, strict=True)]
        return ["", *turned[0]], [[t, *line] for t, line in zip(titles, turned[1:], strict=True)], []

    def _names(self) -> list[str]:
        """Return a name for each board: the properties in which they differ. A single board has none."""
        if len(self.boards) == 1:
            return []
        differing = [field for field in _FIELDS if len({_text(b.track, field) for b in self.boards}) > 1]
        return [", ".join(filter(None, (_text(b.track, f) for f in differing))) for b in self.boards]

    def _caption(self) -> list[str]:
        """Return the sentences of the caption without full stops: metric, what the boards share, n and `±`."""
        tracks = [board.track for board in self.boards]
        metrics = list(dict.fromkeys(self.style.metrics or [t.metric for t in tracks]))
        names = ["Test accuracy (%)" if m == ACCURACY else _COST_NAMES.get(m, m) for m in metrics]
        sentences = [", ".join(names)]
        for field, name in _FIELDS.items():
            values = {_text(track, field) for track in tracks}
            if len(values) == 1 and (value := values.pop()) and field != "metric":
                sentences.append(f"{name}: {value}")
        return [*sentences, *self._statistics()]

    def _statistics(self) -> list[str]:
        """Return the sentences about n and `±`."""
        count = self._common_count()
        if count is not None:
            among = f"n={count}" + (" (sets × networks of each)" if "×" in count else "")
            first = f"Means over {among} fresh networks"
        elif self.style.counts:
            first = "Means over n fresh networks; n=3×5 means 3 synthetic sets with 5 networks each"
        else:
            first = f"Means over n fresh networks (sets × networks of each): {self._counts()}"
        spread = {
            "std": "±: standard deviation over all networks",
            "ci": "±: half the width of the 95 % confidence interval of the mean (Student's t), over the sets if an "
            "entry has several, otherwise over its networks",
            "none": "",
        }[self.style.spread]
        return [first] + [spread] * bool(spread)

    def _counts(self) -> str:
        """Return the number of networks of each method, with board and IPC if it is not the same everywhere."""
        found: dict[str, set[str]] = {}
        for record in self._records():
            found.setdefault(record.method, set()).add(networks(record))
        names = dict(
            zip([b.track for b in self.boards], self._names() or [""] * len(self.boards), strict=True)
        )
        by_count: dict[str, list[str]] = {}
        for record in self._records():
            where = ", ".join(filter(None, [names.get(Track.of(record), ""), f"IPC {record.ipc}"]))
            label = f"{record.method} ({where})" if len(found[record.method]) > 1 else record.method
            by_count.setdefault(networks(record), []).append(label)
        return "; ".join(f"n={n} for {', '.join(dict.fromkeys(x))}" for n, x in by_count.items())

    def _common_count(self) -> str | None:
        """Return the number of networks if it is the same for all entries of the table."""
        counts = {networks(record) for record in self._records()}
        return counts.pop() if len(counts) == 1 else None

    def _records(self) -> list[Record]:
        cells = (c for board in self.boards for row in board.rows.values() for c in row)
        found = {c.record.key: c.record for c in cells if c.record and c.record.status == "done"}
        return list(found.values())

    def _legend(self, markup: Markup) -> list[str]:
        shown = [board if self.style.published else replace(board, sources={}) for board in self.boards]
        return joint_legend(shown, markup, self.style.highlight, self._names())

    def _warnings(self) -> list[str]:
        names = self._names() or [""]
        return [
            f"{name}: {text}" if name else text
            for name, board in zip(names, self.boards, strict=True)
            for text in board.warnings
        ]


def paper_table(
    entries: str | Path = ROOT / "entries",
    *,
    methods: Sequence[str] = (),
    ipcs: Sequence[int] = (),
    metrics: Sequence[str] = (),
    decimals: int | None = None,
    spread: Spread = "std",
    highlight: Highlight = "ranks",
    counts: bool = True,
    published: bool = True,
    variants: bool = False,
    transposed: bool = False,
    published_dir: str | Path = PUBLISHED,
    command: str = "dd-bench leaderboard table",
    **names: Sequence[str],
) -> PaperTable:
    """Return a table of selected boards, methods, IPCs and metrics.

    Args:
        entries: folder of entries, or of the records of your runs, e.g. `runs/records`.
        methods: rows in this order, e.g. `["random", "dm", "dm #2"]`; all methods by default.
        ipcs: images per class; all by default.
        metrics: metrics of the records, `bytes` or `seconds`; the main metric by default.
        decimals: decimals of means and `±`; by default one for accuracies in percent, four for other metrics.
        spread: `±` is the standard deviation (`std`), half the width of the 95 % interval (`ci`) or left out (`none`).
        highlight: `ranks` (best in bold, tied with it underlined or ≈), `best` or `none`.
        counts: show n in each cell, unless it is the same for all. Otherwise n is in the caption.
        published: show published numbers in columns of their own.
        variants: also show the rows `<method> #2` and higher.
        transposed: methods are columns.
        published_dir: folder of published numbers.
        command: written into the first line of the LaTeX source.
        **names: which boards to show: `board`, `dataset`, `protocol`, `labels`, `evaluator`, `model` and `selection`,
            each a list of names. Boards are shown side by side.

    Raises:
        ValueError: a name is unknown, nothing is selected or too much, or an entry is invalid.
        TypeError: an argument is unknown.
    """
    if unknown := sorted(names.keys() - {field.name for field in fields(BoardFilter)}):
        raise TypeError(f"paper_table() got an unexpected argument {unknown[0]!r}")
    if decimals is not None and decimals < 0:
        raise ValueError(f"decimals must be an integer >= 0, got {decimals}. Example: --decimals 2")
    wanted = BoardFilter(**{k: [v] if isinstance(v, str) else v for k, v in names.items()})
    every = boards(load_entries(Path(entries)), load_published(Path(published_dir)))
    found = select_boards(every, wanted)
    check_count(found, MAX_BOARDS if wanted else 1)
    found = narrowed(found, methods, ipcs, variants)
    _check_metrics(found, metrics)
    style = Style(decimals, spread, highlight, counts, published, tuple(metrics))
    return PaperTable(found, style, transposed, command)


_COST_NAMES = {
    "bytes": "stored bytes of a set",
    "seconds": "seconds to create a set, with teachers and experts",
}


def _check_metrics(found: Sequence[Board], metrics: Sequence[str]) -> None:
    known = list(dict.fromkeys(m for board in found for r in board.records for m in sorted(r.metrics)))
    for metric in metrics:
        if metric not in (*known, *COSTS):
            raise ValueError(unknown_name("metric", metric, [*known, *COSTS]))


def _text(track: Track, field: str) -> str:
    value: str = getattr(track, field)
    return f"{value} v{track.version}" if field == "protocol" else value
