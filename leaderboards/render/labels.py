"""Comparison of label modes for the same sets and training recipe, with one column per label mode.

A board has a single label mode, so it cannot show the effect of the labels alone. This page has one table for each
dataset, network, group of teachers and training recipe.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from dd_bench.records.label_keys import DEFAULTS
from dd_bench.records.record import Record
from dd_bench.runtime.files import canonical

from ..core.entries import Track
from ..core.row_labels import side_by_side
from .formatting import networks, number, with_marks
from .markup import MARKDOWN, markdown_table

LABEL_MODES = ("hard", "static", "replay", "online")

REDUCED = (
    "pool",
    "pool_unit",
    "stored_epochs",
    "top",
    "rest",
    "label_bits",
    "phases",
    "temperature_schedule",
    "student_temperature",
)
"""Keys that change what is stored or used of the labels of a view; see `label_bits`."""


def label_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return a title and a Markdown table for each group of records that differ only in the label mode.

    Entries that compare many kinds of labels are in the tables of `label_bits`.
    """
    tables = []
    plain = [r for r in records if not Track.of(r).compares_labels and not _reduced(r)]
    for title, group in label_groups(plain, ("kind",)):
        modes = [mode for mode in LABEL_MODES if any(r.label_mode == mode for r in group)]
        rows = list(_rows(group, modes))
        tables.append((title, markdown_table(["Method", "IPC", *modes], rows, left=1)))
    return tables


def early_stops(record: Record) -> dict[str, Any]:
    """Return the epoch of each teacher that was stopped before its last epoch."""
    teachers = record.config.get("teachers") or {}
    return {name: spec["epoch"] for name, spec in teachers.items() if (spec or {}).get("epoch") is not None}


def _changed_labels(record: Record) -> dict[str, Any]:
    """Return the keys of the labels of a record that do not have their usual values."""
    labels = record.config.get("protocol", {}).get("labels") or {}
    return {k: v for k, v in labels.items() if k not in DEFAULTS or v != DEFAULTS[k]}


def _reduced(record: Record) -> bool:
    """Return whether labels are reduced, change during the training, or are from teachers that were stopped early."""
    return any(k in _changed_labels(record) for k in REDUCED) or bool(record.teachers and early_stops(record))


def label_groups(
    records: Sequence[Record], varying: Sequence[str] | None
) -> Iterator[tuple[str, list[Record]]]:
    """Yield a title and the records of each group that differ only in the keys `varying` of their protocol's labels.

    With `varying=None`, all keys may differ, and so may the epoch at which the teachers were stopped.

    Records whose teachers have other weights are in other groups. A record without teachers, such as random images with
    hard labels, or with teachers that were stopped early, is in the groups that have its sets with labels of teachers.
    """
    groups: dict[tuple[str, ...], dict[_Weights, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.status == "done" and record.config.get("protocol", {}).get("labels"):
            recipe = canonical(record.config["protocol"].get("recipe"))
            changed = {} if varying is None else _changed_labels(record)
            labels = {k: v for k, v in changed.items() if k not in (varying or ())}
            # The configured teachers are part of the group for hard labels too.
            teachers = "+".join(sorted(record.config.get("teachers") or {}))
            key = (record.dataset, record.model, teachers, recipe, canonical(labels), record.selection)
            weights = tuple(sorted((t.name, t.digest or "") for t in record.teachers))
            groups[key][() if varying is None and early_stops(record) else weights].append(record)
    for (dataset, model, teachers, *_), by_weights in sorted(groups.items()):
        for group in _with_controls(by_weights):
            protocols = {
                r.protocol.name.partition("(")[0] if varying is None else r.protocol.name for r in group
            }
            names = sorted(protocols, key=lambda name: (len(name), name))
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
    named = [r for r in records if r.teachers and not early_stops(r)]
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
