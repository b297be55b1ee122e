"""Rows of tables with one experiment per row. A label contains the values in which experiments of a method differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from dd_bench.records.config_diff import STORED, leaves
from dd_bench.records.overrides import LOCATION_KEYS
from dd_bench.records.record import Record

from .entries import BASELINES


def side_by_side(
    records: Sequence[Record], column: Callable[[Record], str], columns: int = 1
) -> Iterator[tuple[int, str, dict[str, Record]]]:
    """Yield one tuple per row: the IPC, the label, and a dictionary from column to record.

    Rows are sorted by IPC, and baselines come first at each IPC. If several records belong to the same cell, the latest
    is in this row, and the earlier ones are in the rows `<label> #2`, `<label> #3` and so on below it.

    Args:
        records: the records of a table.
        column: returns the column of a record.
        columns: a label with records in fewer columns has no row.
    """
    label_of = record_labels(records)
    cells: dict[tuple[int, str], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in sorted(records, key=lambda r: (r.created, r.key), reverse=True):
        cells[record.ipc, label_of[record.key]][column(record)].append(record)

    def order(key: tuple[int, str]) -> tuple[int, int, str]:
        return key[0], BASELINES.index(key[1]) if key[1] in BASELINES else len(BASELINES), key[1]

    for ipc, label in sorted(cells, key=order):
        found = cells[ipc, label]
        if len(found) < columns:
            continue
        for i in range(max(map(len, found.values()))):
            row = {
                name: column_records[i] for name, column_records in found.items() if i < len(column_records)
            }
            yield ipc, label if i == 0 else f"{label} #{i + 1}", row


def record_labels(records: Sequence[Record], without: Sequence[str] = ()) -> dict[str, str]:
    """Return a label for each record key: the method, and the values in which its records at the same IPC differ.

    Keys that are in `without`, or whose part before the first dot is, are ignored.
    """
    groups: dict[tuple[int, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for record in records:
        values = hyperparameters(record).items()
        groups[record.ipc, record.method][record.key] = {
            k: v for k, v in values if k.partition(".")[0] not in without
        }
    labels = {}
    for (_, method), group in groups.items():
        keys = _differing_keys(group.values())
        for record_key, own in group.items():
            text = ", ".join(f"{k}={own[k]}" for k in keys if k in own)
            labels[record_key] = f"{method} ({text})" if text else method
    return labels


def hyperparameters(record: Record) -> dict[str, Any]:
    """Return all values in which two records of a method may differ, except those that have a column in a table."""
    config = record.config
    evaluator = {k: v for k, v in config.get("evaluator", {}).items() if k != "num_networks"}
    teachers = {
        name: {k: v for k, v in (spec or {}).items() if k != "keep"}  # `keep` does not change the result
        for name, spec in (config.get("teachers") or {}).items()
    }
    order = {"teachers": "+".join(t.name for t in record.teachers)} if record.teachers else {}
    data = {k: v for k, v in config.get("dataset", {}).items() if k not in LOCATION_KEYS}
    weights = {"weights": {t.name: t.digest[:8] for t in record.teachers if t.digest}}
    base = config.get("base")
    stored = config.get(STORED)
    precision = {"stored": stored.get("precision")} if isinstance(stored, dict) else {}
    others = {
        "base": f"{base.get('method')} {str(base.get('digest'))[:8]}" if isinstance(base, dict) else "none",
        "seed": config.get("seed"),
        "evaluator": evaluator,
        "teacher": teachers,
        "dataset": data,
        **weights,
        **precision,
        "numbers": record.code.numbers,
    }
    return dict(leaves(config.get("method", {}))) | dict(leaves(others)) | order


def _differing_keys(group: Iterable[dict[str, Any]]) -> list[str]:
    """Return the keys that have at least two different values in a group. A missing key does not count as a value."""
    first: dict[str, Any] = {}
    differ = set()
    for values in group:
        differ |= {k for k, v in values.items() if first.setdefault(k, v) != v}
    return sorted(differ)
