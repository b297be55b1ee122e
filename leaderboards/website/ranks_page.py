"""The page of mean ranks over datasets: one table for each protocol and label mode that several datasets share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from ..core.boards import Board
from ..core.mean_ranks import (
    MIN_DATASETS,
    MIN_FOR_INTERVAL,
    MIN_METHODS,
    Cell,
    MeanRank,
    RankSummary,
    rank_summaries,
)
from .addresses import method_url
from .rows import Cells, column, labels_cell, method_cell

LEAD = (
    "Mean rank of each method over several datasets; 1 is the best. Protocols, label modes and metrics are not mixed: "
    "each has its own table. A table has the methods that are ranked in all of its cells (dataset, network and IPC). "
    "In each cell, methods are ranked by their mean; each dataset has the same weight. The first interval is over "
    f"repeated evaluations in these cells, the second over datasets, for at least {MIN_FOR_INTERVAL}; neither includes "
    "the choice of hyper-parameters."
)
NONE = f"No protocol has {MIN_METHODS} ranked methods in the same cells of {MIN_DATASETS} datasets."


def rank_parts(boards: Sequence[Board]) -> list[dict[str, Any]]:
    """Return one table per protocol and label mode, those with most entries first."""
    return [_part(summary) for summary in rank_summaries(boards)]


def _part(summary: RankSummary) -> dict[str, Any]:
    t = summary.setting
    labels = labels_cell(t)
    label_text = labels["text"] if isinstance(labels, dict) else labels
    protocol = f"{t.protocol} v{t.version}" + (f", {t.selection}" if t.selection != "last" else "")
    title = f"{protocol}, {label_text} labels, {t.metric}"
    if t.evaluator not in ("accuracy", "graph", "controls"):
        title += f", {t.evaluator}"
    return {
        "title": title,
        "anchor": t._replace(dataset="", model="").slug,
        "text": "; ".join(_cells(summary)) + ".",
        "rows": _rows(summary),
        "plot": None,
    }


def _cells(summary: RankSummary) -> Iterator[str]:
    """Yield which cells and methods enter, as parts of a sentence."""
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


def _rows(summary: RankSummary) -> dict[str, Any]:
    datasets = list(summary.ranks[0].by_dataset)
    several = len(datasets) >= MIN_FOR_INTERVAL
    columns = [
        column("method", "Method", "text"),
        column("rank", "Mean rank"),
        column("interval", "95 %, evaluations", title="over repeated evaluations in the same cells"),
    ]
    columns += [column("datasets", "95 %, datasets", title="over datasets")] * several
    columns += [
        column(f"d{i}", name, wide=True, title="mean rank on this dataset") for i, name in enumerate(datasets)
    ]
    return {"columns": columns, "rows": [{"cells": _row_cells(rank, several)} for rank in summary.ranks]}


def _row_cells(rank: MeanRank, several: bool) -> Cells:
    cells: Cells = [method_cell(rank.method, method_url(rank.method))]
    cells += [{"text": f"{rank.mean:.2f}", "sort": rank.mean}, _interval(rank.mean, rank.interval)]
    cells += [rank.over_datasets and _interval(rank.mean, rank.over_datasets)] * several
    return cells + [{"text": f"{value:.2f}", "sort": value} for value in rank.by_dataset.values()]


def _interval(mean: float, ends: tuple[float, float]) -> dict[str, Any]:
    low, high = ends
    return {"text": f"{low:.2f}–{high:.2f}", "sort": mean, "low": low, "high": high}
