"""The page of mean ranks over datasets: one table for each protocol and label mode that several datasets share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.boards import Board
from ..core.mean_ranks import (
    MIN_DATASETS,
    MIN_FOR_INTERVAL,
    MIN_METHODS,
    MeanRank,
    RankSummary,
    rank_summaries,
)
from ..render.mean_ranks import has_dataset_intervals, rank_cells, rank_interval, rank_title
from .addresses import method_url
from .cells import Cells, column, method_cell

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
    return {
        "title": rank_title(summary),
        "anchor": summary.setting._replace(dataset="", model="").slug,
        "text": rank_cells(summary),
        "rows": _rows(summary),
        "plot": None,
    }


def _rows(summary: RankSummary) -> dict[str, Any]:
    datasets = list(summary.ranks[0].by_dataset)
    several = has_dataset_intervals(summary)
    columns = [
        column("method", "Method", "text"),
        column("rank", "Mean rank"),
        column(
            "interval",
            "95 %, evaluations",
            low_is_best=True,
            title="over repeated evaluations in the same cells",
        ),
    ]
    columns += [column("datasets", "95 %, datasets", low_is_best=True, title="over datasets")] * several
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
    return {"text": rank_interval(ends), "sort": mean, "low": ends[0], "high": ends[1]}
