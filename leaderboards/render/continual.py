"""Class-incremental learning: one row per set, one column per step, then average accuracy and forgetting."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from dd_bench.records.record import Record

from ..core.entries import Track
from ..core.row_labels import side_by_side
from .formatting import interval, networks, with_marks
from .markup import MARKDOWN, markdown_table


def group_by_steps(records: Sequence[Record]) -> dict[tuple[Track, int], list[Record]]:
    """Return the records of each track and number of steps."""
    groups: dict[tuple[Track, int], list[Record]] = defaultdict(list)
    for record in records:
        if record.status == "done" and (steps := len(step_metrics(record))):
            groups[Track.of(record), steps].append(record)
    return dict(sorted(groups.items()))


def step_metrics(record: Record) -> list[str]:
    """Return the metrics `step 1`, `step 2`, ... of a record, sorted by step; empty for other evaluators."""
    names = [m for m in record.metrics if re.fullmatch(r"step [0-9]+", m)]
    return sorted(names, key=lambda m: int(m.split()[1]))


def continual_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return a title and a Markdown table for each track and number of steps."""
    tables = []
    for (track, steps), group in group_by_steps(records).items():
        title = f"{track.dataset} in {steps} steps: {track.protocol} v{track.version}, "
        title += f"{track.label_mode} labels, {track.model}"
        header = ["Method", "IPC", "n", *(f"Step {s}" for s in range(1, steps + 1)), "Average", "Forgetting"]
        tables.append((title, markdown_table(header, list(_rows(group)), left=1)))
    return tables


def _rows(records: Sequence[Record]) -> Iterator[list[str]]:
    for ipc, method, cells in side_by_side(records, lambda _: ""):
        record = cells[""]
        row = [with_marks(method, [record]), str(ipc), networks(record)]
        row += [interval(record, metric) for metric in (*step_metrics(record), "average", "forgetting")]
        yield [MARKDOWN.escape(x) for x in row]
