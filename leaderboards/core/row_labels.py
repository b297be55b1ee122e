"""Tables with a row an experiment and a column a variable: what tells two experiments of one method apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from dd_bench.records.config_diff import leaves
from dd_bench.records.record import Record

from .boards import BASELINES

PLACES = ("root", "download", "kept", "stream")
"""Keys of a dataset that say where it lies, not what it is."""


def side_by_side(
    records: Sequence[Record], column: Callable[[Record], str]
) -> Iterator[tuple[int, str, dict[str, Record]]]:
    """Yields the IPC, the label and the records by column of each row, the baselines first; of two, the latest."""
    label_of = labelled(records)
    cells: dict[tuple[int, str], dict[str, Record]] = defaultdict(dict)
    for record in sorted(records, key=lambda r: (r.created, r.key)):
        cells[record.ipc, label_of[record.key]][column(record)] = record

    def order(key: tuple[int, str]) -> tuple[int, int, str]:
        return key[0], BASELINES.index(key[1]) if key[1] in BASELINES else len(BASELINES), key[1]

    for ipc, label in sorted(cells, key=order):
        yield ipc, label, cells[ipc, label]


def labelled(records: Sequence[Record]) -> dict[str, str]:
    """Returns the label of each record by its key: what tells it from the others of its method and IPC."""
    namesakes: dict[tuple[int, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for record in records:
        namesakes[record.ipc, record.method][record.key] = knobs(record)
    labels = {}
    for (_, method), of in namesakes.items():
        differ = _differing(of.values())
        for key, mine in of.items():
            told = ", ".join(f"{k}={mine[k]}" for k in differ if k in mine)
            labels[key] = f"{method} ({told})" if told else method
    return labels


def knobs(record: Record) -> dict[str, Any]:
    """Returns what two records of one method may differ by, beside what the columns of a table are."""
    config = record.config
    evaluator = {k: v for k, v in config.get("evaluator", {}).items() if k != "num_networks"}
    named = {
        name: {k: v for k, v in (spec or {}).items() if k != "keep"}  # what is kept beside changes nothing
        for name, spec in (config.get("teachers") or {}).items()
    }
    order = {"teachers": "+".join(t.name for t in record.teachers)} if record.teachers else {}
    data = {k: v for k, v in config.get("dataset", {}).items() if k not in PLACES}
    weights = {"weights": {t.name: t.digest[:8] for t in record.teachers if t.digest}}
    others = {
        "seed": config.get("seed"),
        "evaluator": evaluator,
        "teacher": named,
        "dataset": data,
        **weights,
    }
    others["numbers"] = record.code.numbers
    return dict(leaves(config.get("method", {}))) | dict(leaves(others)) | order


def _differing(namesakes: Iterable[dict[str, Any]]) -> list[str]:
    """Returns the knobs that have two values or more among the records of a method; one that is unsaid is none."""
    first: dict[str, Any] = {}
    differ = set()
    for mine in namesakes:
        differ |= {k for k, v in mine.items() if first.setdefault(k, v) != v}
    return sorted(differ)
