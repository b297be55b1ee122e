"""Signs and meanings of the places of entries: one list for tables, pages and their style sheet."""

from __future__ import annotations

from typing import NamedTuple

from ..core.hyperparameters import MARKS
from ..core.ranking import Place


class PlaceMark(NamedTuple):
    """How a place is shown: a sign after the value (empty for an entry behind the best), and its meaning."""

    sign: str
    meaning: str


PLACE_MARKS: dict[Place, PlaceMark] = {
    "best": PlaceMark("★", "highest mean at this IPC"),
    "tied": PlaceMark("≈", "not significantly different from the best at this IPC"),
    "too_few": PlaceMark("?", "n is too small to compare it with the best"),
    "behind": PlaceMark("", "significantly below the best at this IPC"),
    "untested": PlaceMark("‡", "not ranked: its spread cannot be estimated"),
    "over_budget": PlaceMark("!", "not ranked: it stores more than IPC images"),
    "chosen_on_test": PlaceMark(MARKS["test"], "not ranked: hyper-parameters chosen on test data"),
}
"""In the order in which a legend lists them."""
