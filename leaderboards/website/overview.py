"""The boards of a dataset as matrices, the most used board first, with a switch for protocol, labels and network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

from ..core.boards import Board, compared_board
from ..core.citations import Cards
from ..core.findings import Evidence
from ..core.method_info import comment, shipped_text
from ..core.selectors import MAIN_EVALUATORS
from ..render.formatting import with_marks
from .addresses import dataset_url, entry_url, views_url
from .curves import Plot, plots
from .history import histories
from .matrix import Matrix, comparisons, matrix

MAX_BOARDS = 8
"""Maximum number of boards of one dataset on the front page; the page of the dataset has all of them."""


class BoardView(NamedTuple):
    """A board with its matrix and plots, and what it is called in the switch."""

    url: str
    protocol: str
    labels: str
    network: str
    matrix: Matrix
    plots: list[Plot]
    histories: list[Plot]  # over time; only on the page of a dataset


class DatasetView(NamedTuple):
    """The boards of one dataset, the first of which is shown, and the choices of the switch."""

    name: str
    url: str
    about: str
    extent: str  # numbers of methods and boards
    boards: list[BoardView]
    choices: dict[str, list[str]]  # name of a switch: its values, those of the first board first
    citations: list[str]
    more: str  # the file with all boards after the first, which is loaded when one of them is chosen


def dataset_views(boards: Sequence[Board], cards: Cards, *, front: bool) -> list[DatasetView]:
    """Return the datasets with the most compared entries first.

    Args:
        boards: all boards, sorted by dataset. Those that do not measure how well networks learn are left out.
        cards: citations of the datasets.
        front: leave out what only the page of a dataset shows: boards after `MAX_BOARDS`, boards with one entry, and
            plots of boards with one IPC, except for the first board.
    """
    views = []
    uses = Counter(_network(board) for board in boards for _ in board.records)
    for name, group in groupby(boards, key=lambda board: board.track.dataset):
        found = [b for b in group if b.track.evaluator.partition("(")[0] in MAIN_EVALUATORS]
        found.sort(
            key=lambda b: (
                b.track.selection != "last",
                -comparisons(b),
                -len(b.records),
                -uses[
                    _network(b)
                ],  # graph networks have equally many rows: the one with most entries in all boards
                b.track,
            )
        )
        if front:
            found = [b for i, b in enumerate(found) if i == 0 or len(b.records) > 1][:MAX_BOARDS]
        shown = [
            _view(b, drawn=not front or i == 0 or len(b.ipcs) > 1, dated=not front)
            for i, b in enumerate(found)
        ]
        if shown:
            choices = {
                kind: list(dict.fromkeys(getattr(one, kind) for one in shown))
                for kind in ("protocol", "labels", "network")
            }
            views.append(
                DatasetView(
                    name, dataset_url(name), about(name), _extent(shown), shown, choices, cards.data.get(name, []),
                    views_url(name, front=front),
                )
            )  # fmt: skip
    return sorted(views, key=lambda view: -sum(comparisons(one.matrix.board) for one in view.boards))


def about(dataset: str) -> str:
    """Return the description of a shipped dataset, without instructions for its download; '' for other datasets."""
    return comment(shipped_text("dataset", dataset)).partition(";")[0]


def findings(found: Sequence[Evidence], boards: Sequence[Board], limit: int = 3) -> list[dict[str, Any]]:
    """Return the first findings as sentences with links to the board and to the entries that were compared."""
    board_of = {record.key: board for board in boards for record in board.records}
    return [
        {
            "text": one.text,
            "difference": one.difference,
            "board": f"boards/{board_of[one.records[0].key].track.slug}.html",
            "entries": [(with_marks(f"{r.method}, IPC {r.ipc}", [r]), entry_url(r)) for r in one.records],
        }
        for one in list(found)[:limit]
    ]


def _extent(boards: Sequence[BoardView]) -> str:
    """Return the number of methods, of boards and the values of IPC as text: `23 methods, 8 boards, IPC 1, 10, 50`."""
    methods = {line.method for one in boards for line in one.matrix.lines if line.method}
    ipcs = sorted({ipc for one in boards for ipc in one.matrix.ipcs})
    parts = [(len(methods), "method"), (len(boards), "board")]
    counts = ", ".join(f"{n} {word}{'s' if n > 1 else ''}" for n, word in parts)
    return f"{counts}, IPC {', '.join(map(str, ipcs))}"


def _network(board: Board) -> str:
    """Return the name of a board's network without its hyper-parameters."""
    return board.track.model.partition("(")[0]


def _view(board: Board, *, drawn: bool, dated: bool) -> BoardView:
    t, one = board.track, matrix(compared_board(board))
    return BoardView(
        url=f"boards/{t.slug}.html",
        protocol=f"{t.protocol} v{t.version}" + (f", {t.selection}" if t.selection != "last" else ""),
        labels=f"{t.label_mode} labels" + (f" of {t.teachers.count('+') + 1} teachers" if t.teachers else ""),
        network=t.model,
        matrix=one,
        plots=plots(one) if drawn else [],
        histories=histories(board) if dated else [],
    )
