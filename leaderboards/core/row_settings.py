"""What distinguishes the rows of one method on a board: the settings that differ, as a short text for each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dd_bench.records.config_diff import leaves, shipped_config
from dd_bench.records.record import Record

from .row_labels import hyperparameters

MAX_SETTINGS = 2
"""Maximum number of settings in the text of a row. The notes below the table have all of them."""
MAX_LENGTH = 24
"""Maximum length of a value in the text of a row."""
SAME_SET, AGAIN = "same set, evaluated again", "run again"


def differing(first: Record, other: Record) -> list[tuple[str, Any]]:
    """Return the settings of `other` that differ from those of `first`. A missing value does not count as different.

    The weights of teachers and the version of the code are not settings. Warnings of the board name them.
    """
    a, b = hyperparameters(first), hyperparameters(other)
    return [(k, b[k]) for k in sorted(a.keys() & b.keys()) if a[k] != b[k] and _is_setting(k, other)]


def row_texts(main: Mapping[int, Record], others: Sequence[Mapping[int, Record]]) -> list[str]:
    """Return a short text for each row of a method: the settings in which it differs from the others.

    Args:
        main: the first row, by IPC. It has a record at each IPC of the others.
        others: the rows below it.

    Returns:
        For the first row, its values of the settings that other rows change, if they are few and the same at all IPCs;
        for each other row, the values that differ from the first row, or that it repeats this row.
    """
    changed = [
        dict(pair for ipc, record in row.items() for pair in _changed(main[ipc], record)) for row in others
    ]
    keys = dict.fromkeys(key for values in changed for key in values)
    own = [hyperparameters(record) for record in main.values()]
    constant = {k: own[0][k] for k in keys if all(k in v and v[k] == own[0][k] for v in own)}
    return [
        _text(constant.items()) if len(constant) <= MAX_SETTINGS else "",
        *(_text(v.items()) or _again(main, row) for v, row in zip(changed, others, strict=True)),
    ]


def _changed(first: Record, other: Record) -> list[tuple[str, Any]]:
    """Return `differing`, or else the values of the method that only `other` has, except those of its YAML file."""
    if found := differing(first, other):
        return found
    known = dict(leaves(first.config.get("method", {})))
    shipped = dict(leaves(shipped_config("method", other.method)))
    values = sorted(leaves(other.config.get("method", {})), key=lambda pair: pair[0])
    return [(k, v) for k, v in values if k not in known and (k not in shipped or shipped[k] != v)]


def _again(main: Mapping[int, Record], row: Mapping[int, Record]) -> str:
    same = all(r.set_digests and r.set_digests == main[ipc].set_digests for ipc, r in row.items())
    return SAME_SET if same else AGAIN


def _text(values: Iterable[tuple[str, Any]]) -> str:
    parts = [f"{key}={_short(str(value))}" for key, value in values]
    more = [f"{len(parts) - MAX_SETTINGS} more"] if len(parts) > MAX_SETTINGS else []
    return ", ".join(parts[:MAX_SETTINGS] + more)


def _short(text: str) -> str:
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 1]}…"


def _is_setting(key: str, record: Record) -> bool:
    unused = (
        key.startswith("teacher.")
        and not record.teachers
        and "teacher" not in record.config.get("method", {})
    )
    return key != "numbers" and not key.startswith("weights.") and not unused
