"""Mean ranks of methods over several datasets, separately for each protocol, label mode and evaluator.

Ranks are comparable only if every method is ranked against the same methods. A summary therefore has the methods and
the cells (dataset, network and IPC) of the largest complete table: each of its methods is ranked in each of its cells.
Entries that a board does not rank do not enter: larger sets than the IPC, hyper-parameters chosen on test data, the
whole training set, and second rows of a method.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dd_bench.records.intervals import LEVEL, std, t_interval
from dd_bench.records.record import Record

from .boards import Board
from .entries import Track
from .ranking import RANKED
from .selectors import MAIN_EVALUATORS

MIN_METHODS = 3
MIN_DATASETS = 2
DRAWS = 10_000
MAX_CANDIDATES = 2_000
"""Sets of methods that are tried at most, in addition to those of one cell; today's boards have fewer than ten."""
MIN_FOR_INTERVAL = 3
"""Smallest number of datasets for an interval over datasets."""


class Cell(NamedTuple):
    """Where methods are ranked among each other."""

    dataset: str
    model: str
    ipc: int


class MeanRank(NamedTuple):
    """The mean rank of a method, where 1 is the best.

    `interval` is over repeated evaluation in the same cells, `over_datasets` over datasets (None for fewer than three).
    """

    method: str
    mean: float
    interval: tuple[float, float]
    over_datasets: tuple[float, float] | None
    by_dataset: dict[str, float]


class RankSummary(NamedTuple):
    """The mean ranks under one protocol and label mode, the best first."""

    setting: Track  # of one of its boards; dataset and network vary
    cells: list[Cell]
    ranks: list[MeanRank]
    records: list[Record]
    left_out: dict[str, int]  # other ranked methods, with the number of the cells in which they are ranked


def rank_summaries(boards: Sequence[Board]) -> list[RankSummary]:
    """Return the summary of each setting with at least three methods in the same cells of two datasets.

    Those with most entries come first.
    """
    settings: dict[tuple[str, ...], dict[Cell, dict[str, Record]]] = defaultdict(dict)
    track_of: dict[tuple[str, ...], Track] = {}
    for board in boards:
        t = board.track
        if t.evaluator.partition("(")[0] not in MAIN_EVALUATORS:
            continue
        key = tuple(map(str, t._replace(dataset="", model="")))
        track_of.setdefault(key, t)
        for ipc, found in _ranked(board).items():
            settings[key][Cell(t.dataset, t.model, ipc)] = found
    summaries = [
        _summary(track_of[key], cells, *block)
        for key, cells in settings.items()
        if (block := largest_block({cell: frozenset(found) for cell, found in cells.items()}))
    ]
    return sorted(summaries, key=lambda s: (-len(s.records), s.setting))


def largest_block(present: Mapping[Cell, frozenset[str]]) -> tuple[list[str], list[Cell]] | None:
    """Return the methods and cells of the largest complete table, or None.

    Of all tables in which each method is ranked in each cell, with at least `MIN_METHODS` methods and cells of at least
    `MIN_DATASETS` datasets, it has most entries; of several such tables, most methods.

    Args:
        present: the ranked methods of each cell.
    """
    closed: set[frozenset[str]] = set()
    for methods in sorted(present.values(), key=lambda found: (-len(found), sorted(found))):
        closed |= {
            methods,
            *(methods & other for other in closed),
        }  # the methods that some of the cells share
        if len(closed) > MAX_CANDIDATES:
            break
    best: tuple[tuple[int, int, list[str]], list[str], list[Cell]] | None = None
    for methods in closed:
        cells = sorted(cell for cell, found in present.items() if methods <= found)
        if len(methods) < MIN_METHODS or len({cell.dataset for cell in cells}) < MIN_DATASETS:
            continue
        names = sorted(methods)
        order = (-len(names) * len(cells), -len(names), names)
        if best is None or order < best[0]:
            best = order, names, cells
    return best and best[1:]


def _ranked(board: Board) -> dict[int, dict[str, Record]]:
    """Return the ranked entry of the first row of each method, by IPC and method."""
    found: dict[int, dict[str, Record]] = defaultdict(dict)
    for label, cells in board.rows.items():
        for ipc, cell in zip(board.ipcs, cells, strict=True):
            if cell.record and cell.record.method == label and cell.place in RANKED:
                found[ipc][label] = cell.record
    return found


def _summary(
    setting: Track, found: Mapping[Cell, Mapping[str, Record]], methods: Sequence[str], cells: list[Cell]
) -> RankSummary:
    datasets = sorted({cell.dataset for cell in cells})
    rows = [[found[cell][method] for method in methods] for cell in cells]
    exact = np.array([_ranks(np.array([[r.summary().mean for r in row]]))[0] for row in rows])
    generator = np.random.default_rng(0)
    drawn = np.stack([_ranks(_draws(row, generator)) for row in rows])  # cells x draws x methods
    of = np.array([datasets.index(cell.dataset) for cell in cells])
    by_dataset = np.stack([exact[of == i].mean(0) for i in range(len(datasets))])  # datasets x methods
    means = np.stack([drawn[of == i].mean(0) for i in range(len(datasets))]).mean(0)  # draws x methods
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    ranks = [
        MeanRank(
            method,
            float(by_dataset[:, i].mean()),
            (float(low[i]), float(high[i])),
            _over_datasets(by_dataset[:, i].tolist(), len(methods)),
            dict(zip(datasets, by_dataset[:, i].tolist(), strict=True)),
        )
        for i, method in enumerate(methods)
    ]
    others = sorted({m for cell in cells for m in found[cell]} - set(methods))
    left_out = {method: sum(method in found[cell] for cell in cells) for method in others}
    ranks.sort(key=lambda rank: (rank.mean, rank.method))
    return RankSummary(setting, cells, ranks, [r for row in rows for r in row], left_out)


def _draws(records: Sequence[Record], generator: np.random.Generator) -> NDArray[np.float64]:
    """Return draws of the mean of each record, (draws, methods): mean + s / sqrt(n) * t, with t of n-1 degrees.

    This is the posterior distribution of the mean of a normal sample under the usual uninformative prior. Its 95 %
    interval is Student's. A bootstrap of five values would be too narrow.
    """
    columns = []
    for record in records:
        sample = record.sample()
        error = std(sample) / len(sample) ** 0.5
        columns.append(record.summary().mean + error * generator.standard_t(len(sample) - 1, size=DRAWS))
    return np.stack(columns, 1)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ranks in each row, 1 for the highest value. Equal values share the mean of their ranks."""
    from scipy.stats import rankdata  # slow to import

    ranks: NDArray[np.float64] = rankdata(-values, axis=1)
    return ranks


def _over_datasets(ranks: Sequence[float], count: int) -> tuple[float, float] | None:
    if len(ranks) < MIN_FOR_INTERVAL:
        return None
    low, high = t_interval(ranks)
    return max(1.0, low), min(float(count), high)
