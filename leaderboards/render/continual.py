"""Class-incremental learning, step by step: a row a set, a column a step, forgetting at the end."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from dd_bench.records.record import Record

from ..core.entries import Track
from ..core.row_labels import side_by_side
from .formatting import interval, networks
from .markup import MARKDOWN, markdown_table

LabelledData = tuple[Track, int]
"""A track and a number of steps."""


def courses(records: Sequence[Record]) -> dict[LabelledData, list[Record]]:
    """Returns the records of each track and number of steps."""
    found: dict[LabelledData, list[Record]] = defaultdict(list)
    for record in records:
        if record.status == "done" and (steps := len(steps_of(record))):
            found[Track.of(record), steps].append(record)
    return dict(sorted(found.items()))


def steps_of(record: Record) -> list[str]:
    """Returns the metrics of a record that are of a step, in order; none for records of other evaluators."""
    named = [m for m in record.metrics if re.fullmatch(r"step [0-9]+", m)]
    return sorted(named, key=lambda m: int(m.split()[1]))


def continual_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Returns a title and a Markdown table for each track and number of steps."""
    tables = []
    for (track, steps), found in courses(records).items():
        title = f"{track.dataset} in {steps} steps: {track.protocol} v{track.version}, "
        title += f"{track.label_mode} labels, {track.model}"
        header = ["Method", "IPC", "n", *(f"Step {s}" for s in range(1, steps + 1)), "Average", "Forgetting"]
        tables.append((title, markdown_table(header, list(_rows(found)), left=1)))
    return tables


def _rows(found: Sequence[Record]) -> Iterator[list[str]]:
    for ipc, method, of_one in side_by_side(found, lambda _: ""):
        record = of_one[""]
        row = [method, str(ipc), networks(record)]
        row += [interval(record, metric) for metric in (*steps_of(record), "average", "forgetting")]
        yield [MARKDOWN.escape(x) for x in row]
