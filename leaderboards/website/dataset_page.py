"""The page of one dataset: all its boards, sets and commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..core.boards import Board
from ..core.citations import Cards
from ..core.commands import control_command
from .matrix import marks_used
from .method_page import pictures
from .overview import DatasetView, about
from .overview_tables import board_rows
from .sets import KnownSet


def dataset_page(
    name: str,
    view: DatasetView | None,
    boards: Sequence[Board],
    sets: Mapping[str, KnownSet],
    cards: Cards,
) -> dict[str, Any]:
    """Return the values for the template of a dataset's page. `view` has the boards that are shown as matrices."""
    own = [board for board in boards if board.track.dataset == name]
    known = [one for one in sets.values() if one.card.dataset == name]
    commands = []
    if view:
        first = view.boards[0]
        with suppress(ValueError):  # the configuration may have any structure
            command = control_command(first.matrix.board.records[0])
            commands = [(f"Random samples on the first board, {first.protocol}:", command)]
    return {
        "title": name,
        "description": about(name),
        "citations": cards.data.get(name, []),
        "view": view,
        "marks": marks_used([one.matrix for one in view.boards] if view else []),
        "rows": board_rows(own, "../"),
        "commands": commands,
        "pictures": pictures(known, [record for board in own for record in board.records]),
        "sets": len(known),
    }
