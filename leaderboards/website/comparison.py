"""What a board's page needs to compare ticked rows: the values of each entry, and what else differs between entries.

`templates/compare.js` computes the differences in the browser by the rules of `core/differences.py`. A test compares
its results with those of Python for all pairs of a board.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dd_bench.records.record import Record

from ..core.boards import Board
from ..core.differences import by_seed
from ..core.entries import ACCURACY, Track
from ..render.place_marks import PLACE_MARKS


def comparison(board: Board) -> dict[str, Any]:
    """Return what all comparisons of a board share: the scale and decimals of its metric, and the folder of entries."""
    is_accuracy = board.track.metric == ACCURACY
    return {
        "metric": board.track.metric,
        "unit": "percentage points" if is_accuracy else board.track.metric,
        "scale": 100 if is_accuracy else 1,
        "digits": 1 if is_accuracy else 4,
        "entries": f"leaderboards/entries/{board.track.folder}",
    }


def compared_rows(board: Board) -> dict[str, dict[str, Any]]:
    """Return for each finished entry that the board shows, by record key, its part of a comparison.

    `values` are the independent values of the entry. `seeds` and `by_seed` are the seeds of its networks with their
    values, if the entry has one set: two such entries are paired by seed. `by_seed` is left out if it equals `values`.
    The seeds of a board are numbered from 0, because JavaScript would round them.
    `facts` are what the entries of the board do not share, such as the protocol of a row from another board. `note` is
    why the entry is not ranked.
    """
    shown = {c.record.key: c.record for cells in board.rows.values() for c in cells if c.record}
    done = {r.key: r for r in [*shown.values(), *board.records] if r.status == "done"}
    facts = {key: _facts(record) for key, record in done.items()}
    differing = {
        name for fact in facts.values() for name in fact if len({f[name] for f in facts.values()}) > 1
    }
    seeds = {seed: i for i, seed in enumerate(dict.fromkeys(s.seed for r in done.values() for s in r.scores))}
    return {
        key: {
            "id": record.digest[:16],
            **_values(record, seeds),
            "facts": {name: value for name, value in facts[key].items() if name in differing},
            "note": _note(board, record),
        }
        for key, record in done.items()
    }


def _values(record: Record, seeds: Mapping[int, int]) -> dict[str, Any]:
    values = _rounded(record.sample())
    if len(record.by_set(record.main_metric)) > 1:
        return {"values": values}
    found = by_seed(record)
    own = _rounded(list(found.values()))
    return {"values": values, "seeds": [seeds[seed] for seed in found]} | (
        {"by_seed": own} if own != values else {}
    )


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.9g}") for value in values]


def _facts(record: Record) -> Mapping[str, str]:
    """Return what should be equal for two entries to be compared, by its name in the page."""
    t = Track.of(record)
    return {
        "protocol": f"{t.protocol} v{t.version}",
        "labels": f"{t.label_mode} labels",
        "weights of the teachers": ", ".join((teacher.digest or "?")[:8] for teacher in record.teachers),
        "version of the dataset": record.real_digest[:8],
        "numbers version of the code": str(record.code.numbers),
    }


def _note(board: Board, record: Record) -> str:
    place = board.places.get(record.key)
    meaning = (
        PLACE_MARKS[place].meaning if place else "not ranked: from another board, or the whole training set"
    )
    return meaning if meaning.startswith("not ranked") else ""
