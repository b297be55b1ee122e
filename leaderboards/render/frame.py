"""The numbers of boards as a pandas frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from dd_bench.records.record import Record

from ..core.boards import Board, Cell
from .cells import COSTS, Style
from .cost import creation_seconds

MEASURED = "measured"
"""Value of the column `source` of a line that is not from a paper."""


def frame_of(boards: Sequence[Board], style: Style) -> Any:
    """Return a frame with one line per board, row, IPC and metric, and one per published number.

    Columns: those of the board (`dataset`, `protocol`, ...), `row`, `settings` (what distinguishes the rows of a
    method), `ipc`, `method`, `metric`, `mean`, `std`, `ci_low`, `ci_high`, `sets`, `networks`, `place`,
    `hyperparameters`, `relative_size`, `source`, `checked`, `digest`. Numbers are not rounded. Accuracies are fractions
    in [0, 1], also those of papers. `source` is `measured`, or where a published number was read; `checked` is false if
    it was quoted from memory or from a secondary source. Rows of the whole training set have a line for each IPC of the
    board.
    """
    pandas = import_module("pandas")
    lines = [line for board in boards for line in _lines(board, style)]
    return pandas.DataFrame(lines).astype({"sets": "Int64", "networks": "Int64"})


def _lines(board: Board, style: Style) -> Iterator[dict[str, Any]]:
    for label, cells in board.rows.items():
        for ipc, cell in zip(board.ipcs, cells, strict=True):
            place = {**board.track._asdict(), "row": label, "settings": board.settings.get(label), "ipc": ipc}
            record = cell.record
            if record is not None and record.status == "done":
                for metric in style.metrics or [board.track.metric]:
                    if metric in COSTS or metric in record.metrics:
                        yield place | _measured(board, cell, record, metric)
            for published in cell.published if style.published else ():
                number = published.number
                yield place | _line(
                    method=number.method,
                    metric=board.track.metric,
                    mean=number.mean / 100,
                    std=None if number.std is None else number.std / 100,
                    source=f"{number.source}; {number.protocol}",
                    checked=number.verified,
                )


def _measured(board: Board, cell: Cell, record: Record, metric: str) -> dict[str, Any]:
    origin = board.origins.get(record.key)
    shared = {
        "method": record.method,
        "metric": metric,
        "hyperparameters": origin.choice if origin else None,
        "relative_size": board.sizes.get(record.key),
        "source": MEASURED,
        "checked": True,
        "digest": record.digest,
    }
    if metric in COSTS:
        size = float(sum(record.stored_bytes.values())) if record.stored_bytes else None
        return _line(**shared, mean=size if metric == "bytes" else creation_seconds(record))
    s = record.summary(metric)
    statistics = {"mean": s.mean, "std": s.std, "ci_low": s.ci_low, "ci_high": s.ci_high}
    place = cell.place if metric == record.main_metric else None
    return _line(**shared, **statistics, sets=s.num_sets, networks=s.num_networks, place=place)


def _line(**values: Any) -> dict[str, Any]:
    """Return the columns after those of the board, in order; missing values are None."""
    names = ("method", "metric", "mean", "std", "ci_low", "ci_high", "sets", "networks", "place")
    more = ("hyperparameters", "relative_size", "source", "checked", "digest")
    return {name: values.get(name) for name in (*names, *more)}
