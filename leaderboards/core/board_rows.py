"""Assign the records of a board to its rows, so that each row has one method, and describe how settings differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dd_bench.records.hyperparameters import KEY
from dd_bench.records.record import Record

from .entries import distilling_backbone, probed_backbone
from .hyperparameters import CHOSEN, Origin
from .row_settings import differing, row_texts


class Row(NamedTuple):
    """One row: the label, the records by IPC, and what its reader must know about them."""

    label: str
    records: dict[int, Record]
    mixed: bool  # whether its records have different settings
    settings: str  # what distinguishes it from the other rows of its method; '' for the only row
    notes: dict[int, str]  # by IPC


def board_rows(records: Sequence[Record], origins: Mapping[str, Origin]) -> list[Row]:
    """Assign the records of a board, sorted by method, IPC and time, to rows.

    The first row of a method has one record at each IPC: the first record with the settings that the row has at its
    lowest IPC, or, if there is none, the first record at this IPC. Here, records with the hyper-parameters of the paper
    come first, then those of `dd-bench tune`. Of these, records with the most sets come first, then the earliest. The
    settings may thus differ between IPCs, as in papers; the row is then `mixed`. The other records are in rows labelled
    `<method> #2` and so on. Each of these rows has the same settings at all IPCs.
    """
    by_method: dict[str, list[Record]] = {}
    for record in records:
        by_method.setdefault(record.method, []).append(record)
    taken = set(by_method)  # a method may itself be named `dm #2`
    return [row for method, found in by_method.items() for row in _rows_of(method, found, origins, taken)]


def _rows_of(
    method: str, records: Sequence[Record], origins: Mapping[str, Origin], taken: set[str]
) -> Iterator[Row]:
    preferred = sorted(
        records, key=lambda r: (r.ipc, list(CHOSEN).index(origins[r.key].choice), -len(r.set_digests))
    )
    first = preferred[0]
    main = {first.ipc: first}
    for record in preferred:  # prefer those with the same settings, then the first
        if record.ipc not in main or (differing(first, main[record.ipc]) and not differing(first, record)):
            main[record.ipc] = record
    used = {r.key for r in main.values()}
    different = {ipc: found for ipc, r in sorted(main.items()) if (found := differing(first, r))}
    notes = {
        ipc: f"{method} at IPC {ipc}: entry {main[ipc].digest[:16]}, with {_values(found)} instead of its settings at "
        f"IPC {first.ipc}"
        for ipc, found in different.items()
    }
    others: list[dict[int, Record]] = []
    for record in (r for r in records if r.key not in used):
        for row in others:
            if record.ipc not in row and not any(differing(r, record) for r in row.values()):
                row[record.ipc] = record
                break
        else:
            others.append({record.ipc: record})
    first_text, *texts = row_texts(main, others)
    yield Row(method, main, bool(different), first_text, notes)
    number = 2
    for row, text in zip(others, texts, strict=True):
        while (label := f"{method} #{number}") in taken:
            number += 1
        taken.add(label)
        notes = {
            ipc: f"{label} at IPC {ipc}: entry {r.digest[:16]}, {_describe_difference(main[ipc], r)}"
            for ipc, r in sorted(row.items())
        }
        yield Row(label, row, False, text, notes)


def _values(found: Sequence[tuple[str, Any]]) -> str:
    more = f" and {len(found) - 6} more" if len(found) > 6 else ""
    return ", ".join(f"{k}={v}" for k, v in found[:6]) + more


_NOT_MEASURED = ("out", "cache", "logger", "log_every", "checkpoint_seconds", "tuning", KEY)
"""Configuration keys that do not change the measurement."""


def _describe_difference(first: Record, other: Record) -> str:
    """Describe how a second experiment of a method differs from the first.

    Keys of the runtime that one of the records does not have were added after it was measured. They are not named.
    """
    runtimes = [r.config.get("runtime", {}) for r in (first, other)]
    shared = runtimes[0].keys() & runtimes[1].keys()
    a, b = (
        {
            "config": {k: v for k, v in r.config.items() if k not in _NOT_MEASURED}
            | {"runtime": {k: v for k, v in r.config.get("runtime", {}).items() if k in shared}},
            "seeds": r.seeds,
            "made with": distilling_backbone(r) if probed_backbone(r) else None,
            "numbers": r.code.numbers,
        }
        for r in (first, other)
    )
    found = [(k.removeprefix("config."), v) for k, v in sorted(_differences(a, b))]
    return f"with {_values(found)}" if found else "with the same configuration and seeds"


def _differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys at which two configurations differ, with the value in the second (None if missing)."""
    if a == b:
        return
    inner = [x if isinstance(x, dict) else {} for x in (a, b)]
    value, other = (None if isinstance(x, dict) else x for x in (a, b))
    if value != other:
        yield path, other
    for key in inner[0] | inner[1]:
        yield from _differences(inner[0].get(key), inner[1].get(key), f"{path}.{key}" if path else str(key))
