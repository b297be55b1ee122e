"""Synthetic sets evaluated on several networks: one table per track, one column per network.

A board has a single network, so it cannot show whether a set works only for the network it was distilled with. This
page shows it for every method that was evaluated on at least two networks. Controls are in parentheses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean

from dd_bench.records.record import Record

from ..core.entries import Track
from ..core.row_labels import side_by_side
from .formatting import networks, number, with_marks
from .markup import MARKDOWN, markdown_table

SET_CONTROLS = ("permuted", "untrained", "best_val")
"""Control metrics of a set, shown in its cell."""
DATA_CONTROLS = ("size_only", "majority")
"""Control metrics that do not depend on the set, with one row each."""


def architecture_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return a title and a Markdown table for each group of tracks that differ only in the network."""
    groups: dict[Track, list[Record]] = defaultdict(list)
    for record in records:
        if record.status == "done":
            groups[Track.of(record)._replace(model="")].append(record)
    tables = []
    for track, group in sorted(groups.items()):
        models = sorted({r.model for r in group})
        if len(models) > 1:
            header = ["Method", "IPC", "Bytes", "Sets", *models]
            tables.append((track.title, markdown_table(header, list(_rows(group, models)), left=1)))
    return tables


def _rows(records: Sequence[Record], models: Sequence[str]) -> Iterator[list[str]]:
    for name in DATA_CONTROLS:
        values = {r.model: s.value for r in records for s in r.scores if s.metric == name}
        if values:
            metric = records[0].main_metric
            texts = [number([values[m]], metric) if m in values else "" for m in models]
            yield [MARKDOWN.escape(x) for x in (name, "", "", "", *texts)]
    for ipc, method, by_model in side_by_side(records, lambda r: r.model, columns=2):
        sizes = sorted({sum(r.stored_bytes.values()) for r in by_model.values()})
        size = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
        count = len({tuple(r.set_digests) for r in by_model.values()})
        sets = "shared" if count == 1 else "one per network" if count == len(by_model) else f"{count}"
        texts = [_cell(by_model[m]) if m in by_model else "" for m in models]
        yield [
            MARKDOWN.escape(x) for x in (with_marks(method, by_model.values()), str(ipc), size, sets, *texts)
        ]


def _cell(record: Record) -> str:
    """Return e.g. `0.7560 ± 0.0270 (n=10; permuted 0.5000; untrained 0.4800)`."""
    s, notes = record.summary(), [f"n={networks(record)}"]
    for name in SET_CONTROLS:
        values = [score.value for score in record.scores if score.metric == name]
        if len(values) == s.num_networks:
            notes.append(f"{name} {number([fmean(values)], record.main_metric)}")
    return f"{number([s.mean, s.std], record.main_metric)} ({'; '.join(notes)})"
