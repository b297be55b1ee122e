"""Lines below a table that explain its marks, and how the settings of its entries differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from ..core.boards import Board
from ..core.entries import FOREIGN_REFERENCE, HARD_LABEL_RANDOM, REFERENCE, REFERENCE_PROTOCOL
from ..core.hyperparameters import CHOSEN, MARKS, Origin
from ..core.ranking import MIN_SIZE
from .markup import Markup
from .place_marks import PLACE_MARKS

TEST = "Games-Howell test of all entries at the same IPC against the best, family-wise error rate 5 %"
TEST_OF_SELECTED = TEST.replace("all entries", "the entries shown")
TOO_FEW = f"Not significantly below the best, but with fewer than {MIN_SIZE} values n is too small to tell"
UNTESTED = "Not ranked: its spread cannot be estimated, or there is no other entry to test against"
OVER_BUDGET = "Not ranked: its set stores more than IPC images, even at 32 bits per value"
SMALLEST_EXCESS = 1.05
"""Sets of this relative size or more are marked with it."""
QUOTED = (
    "Quoted from memory or from a secondary source: notes on a paper, or a table that repeats numbers of other papers. "
    "Check it before citing."
)

Highlight = Literal["ranks", "best", "none"]
"""Marks of ranks: `ranks` is the best, those tied with it and those with too few networks; `best` only the best."""


def legend_of(board: Board, markup: Markup) -> list[str]:
    """Return the lines under the table of a board. A mark is explained only if the table contains it."""
    first = markup.escape(
        "Mean ± std over n fresh networks. n=3×5 means 3 synthetic sets with 5 networks each."
    )
    return [first, *joint_legend([board], markup)]


def joint_legend(
    boards: Sequence[Board], markup: Markup, highlight: Highlight = "ranks", names: Sequence[str] = ()
) -> list[str]:
    """Return the lines under a table of several boards, each line once. They do not explain `±` and n.

    Args:
        boards: they must number their reasons and sources jointly, see `narrowed`.
        markup: Markdown, LaTeX or plain text.
        highlight: which ranks the table marks.
        names: a name for each board, which begins the lines about its settings; no names for a single board.
    """
    parts = [
        _parts(board, markup, highlight, f"{name}: " if name else "")
        for board, name in zip(boards, names or [""] * len(boards), strict=True)
    ]
    return list(dict.fromkeys(line for part in zip(*parts, strict=True) for lines in part for line in lines))


def _parts(board: Board, markup: Markup, highlight: Highlight, name: str) -> list[list[str]]:
    """Return the lines under the table of a board in parts; every board has the same number of parts."""
    escape = markup.escape

    def note(mark: str, text: str) -> str:
        return f"{markup.mark.format(escape(mark)).strip()} {escape(text)}"

    settings = [*board.changed_hyperparameters, *board.variants]
    return [
        _rank_lines(board, markup, highlight, note),
        _chosen_lines(board, note),
        [escape(text) for text in _row_lines(board)],
        [note("§", "The settings of the row differ between IPCs, see below.")] * bool(board.mixed),
        [escape(name + text) for text in settings],
        [note(str(i), text) for i, text in enumerate(board.reasons, 1)],
        _source_lines(board, markup),
        [note(letter, f"{p.source}; {p.protocol}") for letter, p in board.sources.items()],
        [note("†", QUOTED)] * any(not p.verified for p in board.sources.values()),
    ]


def _rank_lines(
    board: Board, markup: Markup, highlight: Highlight, note: Callable[[str, str], str]
) -> list[str]:
    """Return the lines about ranks and about sizes of sets."""
    places, escape, lines = set(board.places.values()), markup.escape, []
    best, tied = markup.best.format("best"), markup.tied.format("tied")
    if "best" in places and highlight == "ranks":
        test = TEST_OF_SELECTED if board.is_selection else TEST
        lines.append(
            f"{best}: highest mean at its IPC. {tied}: {escape(f'not significantly different from it ({test}).')}"
        )
    elif "best" in places and highlight == "best":
        lines.append(
            f"{best}: highest mean at its IPC. Its difference from the others may not be significant."
        )
    if "too_few" in places and highlight == "ranks":
        lines.append(note(PLACE_MARKS["too_few"].sign, f"{TOO_FEW}."))
    if any(size >= SMALLEST_EXCESS for size in board.sizes.values()):
        lines.append(
            note(
                "N×",
                "The set with its labels has N times the stored bytes of IPC real samples per class, as random images "
                "with 8 bits per value. Sets without this mark have no more.",
            )
        )
    if "over_budget" in places:
        lines.append(note(PLACE_MARKS["over_budget"].sign, f"{OVER_BUDGET}."))
    if "untested" in places and highlight == "ranks":
        lines.append(note(PLACE_MARKS["untested"].sign, f"{UNTESTED}."))
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
    return lines + [note(MARKS["test"], f"{', '.join(names)}: {o.reason}.") for o, names in reasons.items()]


def _row_lines(board: Board) -> list[str]:
    """Return the lines about rows that are not ranked and about entries with several sets."""
    lines = []
    if REFERENCE in board.rows:
        lines.append(f"{REFERENCE}: trained on the whole training set. It has no IPC and is not ranked.")
    if FOREIGN_REFERENCE in board.rows:
        lines.append(
            f"{FOREIGN_REFERENCE}: trained on the whole training set under the protocol {REFERENCE_PROTOCOL}, from "
            "the board of that protocol. It has no IPC and is not ranked."
        )
    if HARD_LABEL_RANDOM in board.rows:
        lines.append(
            f"{HARD_LABEL_RANDOM}: from the hard-label board of the same protocol. It is not ranked."
        )
    if len({r.summary().num_sets for r in board.records if r.status == "done"} | {1}) > 1:
        lines.append(
            "Tests and intervals of an entry with several sets are over its sets. Those of an entry with a single "
            "set are over its networks and do not include the variation between runs of the method."
        )
    return lines


def _source_lines(board: Board, markup: Markup) -> list[str]:
    """Return the line about published numbers in general."""
    text = (
        "published: numbers from papers in percent, each measured under its own protocol with this network at its "
        "default width. They are never ranked."
    )
    return [markup.escape(text)] * bool(board.sources)
