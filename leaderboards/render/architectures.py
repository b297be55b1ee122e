"""What a set is worth to other networks than the one it was distilled with: one table a track, a column a network.

A board never mixes networks, so no board shows whether a set is of a network or of the data. This page does, for
every set, or method, that several networks were trained on. In brackets what a control of the same networks reached.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean

from dd_bench.records.record import Record

from ..core.entries import Track
from ..core.row_labels import side_by_side
from .formatting import networks, number
from .markup import MARKDOWN, markdown_table

BESIDE = ("permuted", "untrained", "best_val")
"""Controls of a set: what is written in its cell."""
OF_THE_DATA = ("size_only", "majority")
"""Controls that no set changes: one row each."""


def architecture_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Returns a title and a Markdown table for each track that differs in its network alone."""
    groups: dict[Track, list[Record]] = defaultdict(list)
    for record in records:
        if record.status == "done":
            groups[Track.of(record)._replace(model="")].append(record)
    tables = []
    for track, found in sorted(groups.items()):
        models = sorted({r.model for r in found})
        if len(models) > 1:
            header = ["Method", "IPC", "Bytes", "Sets", *models]
            tables.append((track.title, markdown_table(header, list(_rows(found, models)), left=1)))
    return tables


def _rows(records: Sequence[Record], models: Sequence[str]) -> Iterator[list[str]]:
    for name in OF_THE_DATA:
        values = {r.model: s.value for r in records for s in r.scores if s.metric == name}
        if values:
            metric = records[0].main_metric
            texts = [number([values[m]], metric) if m in values else "" for m in models]
            yield [MARKDOWN.escape(x) for x in (name, "", "", "", *texts)]
    for ipc, method, by_model in side_by_side(records, lambda r: r.model):
        if len(by_model) < 2:
            continue
        sizes = sorted({sum(r.stored_bytes.values()) for r in by_model.values()})
        sets = {tuple(r.set_digests) for r in by_model.values()}
        size = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
        texts = [_cell(by_model[m]) if m in by_model else "" for m in models]
        whose = (
            "the same" if len(sets) == 1 else "one a run" if len(sets) == len(by_model) else f"{len(sets)}"
        )
        yield [MARKDOWN.escape(x) for x in (method, str(ipc), size, whose, *texts)]


def _cell(record: Record) -> str:
    """Returns e.g. `0.7560 ± 0.0270 (n=10; permuted 0.5000; untrained 0.4800)`."""
    s, notes = record.summary(), [f"n={networks(record)}"]
    for name in BESIDE:
        values = [score.value for score in record.scores if score.metric == name]
        if len(values) == s.num_networks:
            notes.append(f"{name} {number([fmean(values)], record.main_metric)}")
    return f"{number([s.mean, s.std], record.main_metric)} ({'; '.join(notes)})"
