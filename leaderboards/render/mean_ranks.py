"""Mean ranks over datasets: one table for each protocol and label mode that several datasets share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby

from ..core.boards import Board
from ..core.mean_ranks import MIN_FOR_INTERVAL, Cell, MeanRank, RankSummary, rank_summaries
from ..core.selectors import MAIN_EVALUATORS
from .markup import MARKDOWN, markdown_table


def rank_tables(boards: Sequence[Board]) -> list[tuple[str, str]]:
    """Return a title, and a Markdown table below a line that names its cells, for each protocol and label mode."""
    return [
        (rank_title(one), f"{MARKDOWN.escape(rank_cells(one))}\n\n{_table(one)}")
        for one in rank_summaries(boards)
    ]


def rank_title(summary: RankSummary) -> str:
    """Return the protocol, label mode and metric of a summary, and the evaluator if it is not a usual one."""
    t = summary.setting
    protocol = f"{t.protocol} v{t.version}" + (f", {t.selection}" if t.selection != "last" else "")
    count = t.teachers.count("+") + 1 if t.teachers else 0
    teachers = f" ({count} teacher{'s' * (count > 1)})" * bool(count)
    title = f"{protocol}, {t.label_mode}{teachers} labels, {t.metric}"
    return title if t.evaluator in MAIN_EVALUATORS else f"{title}, {t.evaluator}"


def rank_cells(summary: RankSummary) -> str:
    """Return which cells and methods enter, as a sentence."""
    return "; ".join(_parts(summary)) + "."


def rank_interval(ends: tuple[float, float]) -> str:
    """Return an interval of ranks: `1.00–2.50`."""
    return f"{ends[0]:.2f}–{ends[1]:.2f}"


def has_dataset_intervals(summary: RankSummary) -> bool:
    """Return whether there are enough datasets for intervals over datasets."""
    return len(summary.ranks[0].by_dataset) >= MIN_FOR_INTERVAL


def _parts(summary: RankSummary) -> Iterator[str]:
    count, methods = len(summary.cells), len(summary.ranks)
    yield f"{methods} methods in {count} cells: " + ", ".join(
        f"{dataset} ({'; '.join(_networks(list(group)))})"
        for dataset, group in groupby(summary.cells, key=lambda cell: cell.dataset)
    )
    if summary.left_out:
        missing = (f"{method} ({number} of {count})" for method, number in summary.left_out.items())
        yield f"ranked in some of the cells only, and left out: {', '.join(missing)}"


def _networks(cells: Sequence[Cell]) -> Iterator[str]:
    """Yield the networks of cells with their IPCs; networks with the same IPCs are listed together."""
    ipcs: dict[str, list[str]] = defaultdict(list)
    for cell in cells:
        ipcs[cell.model].append(str(cell.ipc))
    models: dict[str, list[str]] = defaultdict(list)
    for model, found in ipcs.items():
        models[", ".join(found)].append(model)
    for text, names in models.items():
        yield f"{', '.join(names)}, IPC {text}"


def _table(summary: RankSummary) -> str:
    several = has_dataset_intervals(summary)
    header = ["Method", "Mean rank", "95 %, evaluations", *["95 %, datasets"] * several]
    rows = [list(map(MARKDOWN.escape, _row(rank, several))) for rank in summary.ranks]
    return markdown_table([*header, *summary.ranks[0].by_dataset], rows, left=1)


def _row(rank: MeanRank, several: bool) -> Iterator[str]:
    yield from (rank.method, f"{rank.mean:.2f}", rank_interval(rank.interval))
    if several:
        yield rank_interval(rank.over_datasets) if rank.over_datasets else ""
    yield from (f"{value:.2f}" for value in rank.by_dataset.values())
