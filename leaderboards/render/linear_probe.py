"""Entries of `evaluator=linear_probe`: one row per method and backbone of the set, one column per probed backbone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from dd_bench.records.record import Record

from ..core.entries import BASELINES, Track, distilling_backbone, probed_backbone
from ..core.row_labels import record_labels
from .formatting import networks, number, with_marks
from .markup import MARKDOWN, markdown_table

_COLUMNS = ("teacher", "teachers", "weights", "seed")
"""Values that have a column of their own, or do not distinguish experiments."""


def linear_probe_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return a title and a Markdown table for each dataset and protocol of linear probes."""
    groups: dict[Track, list[Record]] = defaultdict(list)
    for record in records:
        if record.status == "done" and probed_backbone(record):
            groups[Track.of(record)._replace(model="")].append(record)
    tables = []
    for track, group in sorted(groups.items()):
        backbones = sorted({probed_backbone(r) for r in group})
        header = ["Method", "Made with", "IPC", "n", *(f"Probed: {name}" for name in backbones)]
        tables.append((track.title, markdown_table(header, list(_rows(group, backbones)), left=2)))
    return tables


def _rows(records: Sequence[Record], backbones: Sequence[str]) -> Iterator[list[str]]:
    """Yield the rows. Of several records in one cell, the latest is shown."""
    label_of = record_labels(records, _COLUMNS)
    cells: dict[tuple[int, str, str], dict[str, Record]] = defaultdict(dict)
    for record in sorted(records, key=lambda r: (r.created, r.key)):
        cells[record.ipc, label_of[record.key], distilling_backbone(record)][probed_backbone(record)] = record

    def order(key: tuple[int, str, str]) -> tuple[int, int, str, str]:
        ipc, label, made_with = key
        method = next(iter(cells[key].values())).method
        return ipc, BASELINES.index(method) if method in BASELINES else len(BASELINES), label, made_with

    for ipc, label, made_with in sorted(cells, key=order):
        found = cells[ipc, label, made_with]
        counts = list(dict.fromkeys(networks(found[name]) for name in backbones if name in found))
        values = [_mean(found[name]) if name in found else "" for name in backbones]
        row = [with_marks(label, found.values()), made_with or "–", str(ipc), ", ".join(counts), *values]
        yield [MARKDOWN.escape(x) for x in row]


def _mean(record: Record) -> str:
    summary = record.summary()
    return number([summary.mean, summary.std], record.main_metric)
