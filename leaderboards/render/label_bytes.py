"""Accuracy against the stored bytes of labels, for the same sets, teachers and training recipe.

The kinds of labels, by bytes: hard (none), static (one label per image), replay (one per view; fewer with `pool`, which
stores fewer epochs, and with `top`, which stores fewer logits), and online (none, but teacher forwards instead).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dd_bench.records.record import Record

from ..core.row_labels import record_labels
from .formatting import networks, number
from .labels import LABEL_MODES, SHORTENED, label_groups
from .markup import MARKDOWN, markdown_table


class LabelPoint(NamedTuple):
    """The accuracy of one set with one kind of labels, and the cost of these labels."""

    method: str
    ipc: int
    labels: str
    record: Record
    size: int  # bytes of stored labels of teachers
    forwards: int  # teacher forward passes while one network is trained


def label_points(records: Sequence[Record]) -> list[tuple[str, list[LabelPoint]]]:
    """Return a title and the points of each group with at least two kinds of labels, one of them stored.

    Points are sorted by method, IPC, bytes and teacher forwards.
    """
    found = []
    for title, group in label_groups(records, ("kind", *SHORTENED)):
        label_of = record_labels(group)
        points = sorted(
            (
                LabelPoint(
                    label_of[r.key],
                    r.ipc,
                    labels_of(r),
                    r,
                    r.stored_bytes.get("teacher labels", 0),
                    r.teacher_forwards,
                )
                for r in group
            ),
            key=lambda p: (p.method, p.ipc, p.size, p.forwards, p.record.key),
        )
        if len({p.labels for p in points}) > 1 and any(p.size for p in points):
            found.append((title, points))
    return found


def labels_of(record: Record) -> str:
    """Return the kind of labels with the values that reduce its bytes, e.g. `replay, pool=4`."""
    labels = record.config["protocol"]["labels"]
    changed = [f"{key}={labels[key]}" for key in SHORTENED if labels.get(key) not in (None, 1)]
    return ", ".join([record.label_mode, *(changed if record.label_mode == "replay" else [])])


def label_bytes_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return a title and a Markdown table for each group of `label_points`."""
    header = ["Method", "IPC", "Labels", "Bytes of labels", "Teacher forwards", "Mean ± std", "n"]
    return [
        (title, markdown_table(header, list(_rows(points)), left=1))
        for title, points in label_points(records)
    ]


def _rows(points: Sequence[LabelPoint]) -> Iterator[list[str]]:
    for p in points:
        s = p.record.summary()
        row = [p.method, str(p.ipc), p.labels, f"{p.size:,}", f"{p.forwards:,}"]
        row += [number([s.mean, s.std], p.record.main_metric), networks(p.record)]
        yield [MARKDOWN.escape(x) for x in row]


def curves(points: Sequence[LabelPoint]) -> dict[tuple[str, int], tuple[list[LabelPoint], list[LabelPoint]]]:
    """Return the points of stored or hard labels, sorted by bytes, and those of online labels, by method and IPC."""
    found: dict[tuple[str, int], tuple[list[LabelPoint], list[LabelPoint]]] = {}
    for p in points:
        stored, online = found.setdefault((p.method, p.ipc), ([], []))
        (online if p.record.label_mode == LABEL_MODES[-1] else stored).append(p)
    return found
