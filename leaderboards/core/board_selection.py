"""Select boards, rows and IPCs by name. An unknown name is an error with the most similar known names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches

from dd_bench.records.record import Record
from dd_bench.runtime.suggestions import did_you_mean

from .boards import Board, Cell, PublishedNumber, letter_of
from .entries import FOREIGN_REFERENCE, HARD_LABEL_RANDOM, REFERENCE, is_reference
from .published import Published
from .ranking import Place, rank
from .selectors import MAIN_EVALUATORS

UNRANKED = ("over_budget", "chosen_on_test")
"""Places of entries that are not ranked, whichever other entries a table shows."""


@dataclass(frozen=True)
class BoardFilter:
    """Names that the track of a board must have. An empty field selects all.

    A network, protocol or evaluator with values, `convnet(width=32)`, also has the name without them, `convnet`.
    """

    board: Sequence[str] = ()  # paths in leaderboards/tables without suffix
    dataset: Sequence[str] = ()
    protocol: Sequence[str] = ()
    labels: Sequence[str] = ()
    evaluator: Sequence[str] = ()
    model: Sequence[str] = ()
    selection: Sequence[str] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))


def select_boards(
    all_boards: Sequence[Board], wanted: BoardFilter, *, all_evaluators: bool = False
) -> list[Board]:
    """Return the boards that meet all conditions, in the order of the names of boards and datasets, if given.

    Without a board or evaluator, only boards that measure how well networks learn are selected, if there are any,
    unless `all_evaluators` is set.

    Raises:
        ValueError: a name is unknown, or no board meets all conditions.
    """
    found = list(all_boards)
    for field in fields(wanted):
        names: Sequence[str] = getattr(wanted, field.name)
        for name in names:
            known = list(dict.fromkeys(n for b in all_boards for n in _names(b, field.name)))
            if name not in known:
                raise ValueError(unknown_name(field.name, name, known))
        if names:
            found = [b for b in found if any(name in names for name in _names(b, field.name))]
    if not wanted.board and not wanted.evaluator and not all_evaluators:
        main = [b for b in found if b.track.evaluator.partition("(")[0] in MAIN_EVALUATORS]
        found = main or found
    if not found:
        conditions = [
            f"{f.name} {' or '.join(map(str, value))}"
            for f in fields(wanted)
            if (value := getattr(wanted, f.name))
        ]
        raise ValueError(f"no board has {', '.join(conditions)}. Boards:\n{_list(all_boards)}")
    order = {name: i for i, name in enumerate([*wanted.board, *wanted.dataset])}
    return sorted(found, key=lambda b: order.get(b.track.path, order.get(b.track.dataset, len(order))))


def check_count(found: Sequence[Board], limit: int) -> None:
    """Check that boards fit into one table.

    Raises:
        ValueError: there are more than `limit` boards.
    """
    if len(found) > limit:
        raise ValueError(
            f"one table can have at most {limit} boards, got {len(found)}. Select some with --dataset, --protocol, "
            f"--labels, --model or --board, for example: --board '{found[0].track.path}'. Boards:\n{_list(found)}"
        )


def narrowed(
    found: Sequence[Board], methods: Sequence[str] = (), ipcs: Sequence[int] = (), variants: bool = False
) -> list[Board]:
    """Return boards with the selected rows and IPCs only, whose entries are ranked among themselves.

    The boards number their reasons and sources jointly, so that one legend explains all of them. Boards without a
    number in a selected row and IPC are omitted.

    Args:
        found: boards.
        methods: labels of rows, which also determine their order; all by default. `full` also selects the row of the
            whole training set under another protocol.
        ipcs: images per class; all by default.
        variants: also show rows `<method> #2` and higher.

    Raises:
        ValueError: a method or IPC is on none of the boards, or no cell is left.
    """
    known = list(dict.fromkeys(label for board in found for label in board.rows))
    for method in methods:
        if method not in known and not (method == REFERENCE and FOREIGN_REFERENCE in known):
            raise ValueError(unknown_name("method", method, known))
    known_ipcs = sorted({ipc for board in found for ipc in board.ipcs})
    for ipc in ipcs:
        if ipc not in known_ipcs:
            near = min(known_ipcs, key=lambda n: abs(n - ipc))
            raise ValueError(
                f"ipc must be one of {', '.join(map(str, known_ipcs))}, got {ipc}. Did you mean {near}?"
            )
    parts = []
    numbering = _Numbering()
    for board in found:
        rows = _rows(board, methods, variants)
        columns = [i for i, ipc in enumerate(board.ipcs) if not ipcs or ipc in ipcs]
        cells = {label: [board.rows[label][i] for i in columns] for label in rows}
        kept = {label: row for label, row in cells.items() if any(c.record or c.published for c in row)}
        if any(cell.record for row in kept.values() for cell in row):
            parts.append(_part(board, kept, [board.ipcs[i] for i in columns], numbering))
    if not parts:
        raise ValueError("the selected boards have no entry of the selected methods and IPCs")
    return parts


def unknown_name(kind: str, name: str, known: Sequence[str]) -> str:
    """Return the message for a name that is not one of `known`, with the most similar ones."""
    near = [k for k in known if k.partition("(")[0] == name] or get_close_matches(name, known, 3, 0.5)
    listed = ", ".join(known[:30]) + ", ..." * (len(known) > 30)
    return f"{kind} must be one of {listed}, got {name!r}{did_you_mean(near)}"


class _Numbering:
    """Footnotes and letters that several boards share."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.sources: dict[str, PublishedNumber] = {}
        self._letters: dict[tuple[str, str], str] = {}

    def reason(self, text: str) -> int:
        self.reasons += [text] if text not in self.reasons else []
        return self.reasons.index(text) + 1

    def letter(self, published: PublishedNumber) -> PublishedNumber:
        number = published.number
        letter = self._letters.setdefault((number.source, number.protocol), letter_of(len(self._letters)))
        renamed = replace(published, letter=letter)
        self.sources.setdefault(letter, renamed)
        return renamed


def _part(board: Board, cells: dict[str, list[Cell]], ipcs: list[int], numbering: _Numbering) -> Board:
    shown = {c.record.key: c.record for row in cells.values() for c in row if c.record}
    records = [r for r in board.records if r.key in shown]
    complete = len(records) == len(board.records)
    places = board.places if complete else _places(board, records)
    sources: dict[str, Published] = {}
    rows: dict[str, list[Cell]] = {}
    for label, row in cells.items():
        rows[label] = []
        for cell in row:
            published = tuple(map(numbering.letter, cell.published))
            sources |= {p.letter: numbering.sources[p.letter].number for p in published}
            place = places.get(cell.record.key) if cell.record else None
            reason = numbering.reason(board.reasons[cell.reason - 1]) if cell.reason else None
            rows[label].append(Cell(cell.record, place, reason, published))
    notes = {
        label: {ipc: text for ipc, text in board.notes.get(label, {}).items() if ipc in ipcs}
        for label in rows
    }
    return replace(
        board,
        ipcs=ipcs,
        rows=rows,
        records=records,
        places=places,
        reasons=numbering.reasons,
        sources=dict(sorted(sources.items(), key=lambda item: (len(item[0]), item[0]))),
        notes=notes,
        mixed=frozenset(label for label in board.mixed & rows.keys() if notes[label]),
        settings={
            label: text for label, text in board.settings.items() if _is_contrasted(board, label, rows)
        },
        sizes={key: size for key, size in board.sizes.items() if key in shown},
        is_selection=not complete,
    )


def _places(board: Board, records: Iterable[Record]) -> dict[str, Place]:
    """Rank the records of a board that were ranked on it, at each IPC; the others keep their places."""
    places: dict[str, Place] = {}
    by_ipc: dict[int, list[Record]] = {}
    for record in records:
        if (place := board.places.get(record.key)) in UNRANKED:
            places[record.key] = place
        elif place is not None:
            by_ipc.setdefault(record.ipc, []).append(record)
    for group in by_ipc.values():
        places |= zip([r.key for r in group], rank(group), strict=True)
    return places


def _rows(board: Board, methods: Sequence[str], variants: bool) -> list[str]:
    """Return the labels of the selected rows of a board, in the order of `methods`."""
    first = [label for label in board.rows if is_first_row(board, label)]
    if not methods:
        return list(board.rows) if variants else first
    labels = [
        label
        for method in methods
        for label in board.rows
        if label == method
        or (method == REFERENCE and is_reference(label))
        or (variants and label.startswith(f"{method} #"))
    ]
    return list(dict.fromkeys(labels))


def is_first_row(board: Board, label: str) -> bool:
    """Return whether a row is the first of its method, and not one of its variants `<method> #2`."""
    methods = {cell.record.method for cell in board.rows[label] if cell.record}
    return label in methods or label == HARD_LABEL_RANDOM or is_reference(label) or not methods


def _is_contrasted(board: Board, label: str, rows: Iterable[str]) -> bool:
    """Return whether a row is one of `rows`, and either is a variant or is shown together with one."""
    variants = any(other.startswith(f"{label} #") for other in rows)
    return label in rows and (variants or not is_first_row(board, label))


def _names(board: Board, field: str) -> list[str]:
    """Return the names that select a board in one field of a filter."""
    if field == "board":
        return [board.track.path]
    name = getattr(board.track, "label_mode" if field == "labels" else field)
    return list(dict.fromkeys([name, name.partition("(")[0]]))


def _list(found: Sequence[Board]) -> str:
    shown = [f"  {board.track.path}" for board in found[:20]]
    return "\n".join([*shown, *[f"  and {len(found) - 20} more"] * (len(found) > 20)])
