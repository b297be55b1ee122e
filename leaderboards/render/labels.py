"""Comparison of label modes for the same sets and training recipe, with one column per label mode.

A board has a single label mode, so it cannot show the effect of the labels alone. This page has one table for each
dataset, network, group of teachers and training recipe.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from dd_bench.records.record import Record
from dd_bench.runtime.files import canonical

from ..core.row_labels import side_by_side
from .formatting import networks, number, with_marks
from .markup import MARKDOWN, markdown_table

LABEL_MODES = ("hard", "static", "replay", "online")


SHORTENED = ("pool", "top")
"""Keys of a protocol's labels that reduce the stored bytes of replayed labels; see `label_bytes`."""


def label_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return a title and a Markdown table for each group of records that differ only in the label mode."""
    tables = []
    for title, group in label_groups(records, ("kind",)):
        modes = [mode for mode in LABEL_MODES if any(r.label_mode == mode for r in group)]
        rows = list(_rows(group, modes))
        tables.append((title, markdown_table(["Method", "IPC", *modes], rows, left=1)))
    return tables


def label_groups(records: Sequence[Record], varying: Sequence[str]) -> Iterator[tuple[str, list[Record]]]:
    """Yield a title and the records of each group that differ only in the keys `varying` of their protocol's labels.

    Records whose teachers have other weights are in other groups. A record without teachers, such as random images with
    hard labels, is in the groups that have its sets with labels of teachers.
    """
    groups: dict[tuple[str, ...], dict[_Weights, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.status == "done" and record.config.get("protocol", {}).get("labels"):
            recipe = canonical(record.config["protocol"].get("recipe"))
            labels = {k: v for k, v in record.config["protocol"]["labels"].items() if k not in varying}
            # The configured teachers are part of the group for hard labels too.
            teachers = "+".join(sorted(record.config.get("teachers") or {}))
            key = (record.dataset, record.model, teachers, recipe, canonical(labels), record.selection)
            groups[key][tuple(sorted((t.name, t.digest or "") for t in record.teachers))].append(record)
    for (dataset, model, teachers, *_), by_weights in sorted(groups.items()):
        for group in _with_controls(by_weights):
            names = sorted({r.protocol.name for r in group}, key=lambda name: (len(name), name))
            title = f"{dataset}, {model}, teachers {_teachers_of(group) or teachers}: {', '.join(names)}"
            yield title, group


_Weights = tuple[tuple[str, str], ...]
"""Names and digests of teachers, sorted."""


def _with_controls(by_weights: Mapping[_Weights, list[Record]]) -> Iterator[list[Record]]:
    """Yield the records of each group of teachers, with the records without teachers that have the same sets."""

    def what(record: Record) -> tuple[object, ...]:
        return record.method, record.ipc, tuple(record.set_digests)

    without = by_weights.get((), [])
    taught = {weights: found for weights, found in by_weights.items() if weights}
    sets = {weights: set(map(what, found)) for weights, found in taught.items()}
    if alone := [r for r in without if not any(what(r) in known for known in sets.values())]:
        yield alone
    for weights, found in sorted(taught.items()):
        yield found + [r for r in without if what(r) in sets[weights]]


def _teachers_of(records: Sequence[Record]) -> str:
    """Return the teachers of the latest record that has any, with digest and test accuracy; '' if no record has."""
    named = [r for r in records if r.teachers]
    latest = max(named, key=lambda r: (r.created, r.key)).teachers if named else []
    return ", ".join(
        t.name
        + f" {(t.digest or '')[:8]}".rstrip()
        + ("" if t.accuracy is None else f" ({100 * t.accuracy:.1f} %)")
        for t in latest
    )


def _rows(records: Sequence[Record], modes: Sequence[str]) -> Iterator[list[str]]:
    for ipc, method, by_mode in side_by_side(records, lambda r: r.label_mode):
        texts = [_cell(by_mode[mode]) if mode in by_mode else "" for mode in modes]
        yield [MARKDOWN.escape(x) for x in (with_marks(method, by_mode.values()), str(ipc), *texts)]


def _cell(record: Record) -> str:
    """Return e.g. `61.0 ± 0.8 (n=3; random 58.2; 40,000 B of labels)`."""
    s = record.summary()
    notes = [f"n={networks(record)}"]
    for control in record.metrics:
        if control != record.main_metric:
            values = [score.value for score in record.scores if score.metric == control]
            notes.append(f"{control} {number([fmean(values)], record.main_metric)}")
    if size := record.stored_bytes.get("teacher labels"):
        notes.append(f"{size:,} B of labels")
    if record.teacher_forwards:
        notes.append(f"{record.teacher_forwards:,} teacher forwards")
    return f"{number([s.mean, s.std], record.main_metric)} ({'; '.join(notes)})"
