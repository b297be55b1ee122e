"""What the images give and what the labels give: one recipe, the same sets, and four ways to tell the answers.

A board never mixes label kinds, so no board shows what changes when only they do. This page does: one table for
each dataset, network and recipe of training under which several kinds were measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean

from dd_bench.records.record import Record
from dd_bench.runtime.files import canonical

from ..core.row_labels import side_by_side
from .formatting import networks, number
from .markup import MARKDOWN, markdown_table

KINDS = ("hard", "static", "replay", "online")


def label_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Returns a title and a Markdown table for each group of records that differ in label kind alone."""
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        if record.status == "done" and record.config.get("protocol", {}).get("labels"):
            recipe = canonical(record.config["protocol"].get("recipe"))
            told = {k: v for k, v in record.config["protocol"]["labels"].items() if k != "kind"}
            teachers = "+".join(
                sorted(record.config.get("teachers") or {})
            )  # hard labels have a twin with each
            group = (record.dataset, record.model, teachers, recipe, canonical(told), record.selection)
            groups[group].append(record)
    tables = []
    for (dataset, model, teachers, *_), found in sorted(groups.items()):
        kinds = [kind for kind in KINDS if any(r.label_mode == kind for r in found)]
        names = sorted({r.protocol.name for r in found}, key=lambda name: (len(name), name))
        title = f"{dataset}, {model}, taught by {_teachers_of(found) or teachers}: {', '.join(names)}"
        tables.append((title, markdown_table(["Method", "IPC", *kinds], list(_rows(found, kinds)), left=1)))
    return tables


def _teachers_of(records: Sequence[Record]) -> str:
    """Returns the teachers of the latest record that names them, in their order, with their test accuracy; or ''."""
    named = [r for r in records if r.teachers]
    latest = max(named, key=lambda r: (r.created, r.key)).teachers if named else []
    return ", ".join(t.name if t.accuracy is None else f"{t.name} ({100 * t.accuracy:.1f} %)" for t in latest)


def _rows(records: Sequence[Record], kinds: Sequence[str]) -> Iterator[list[str]]:
    for ipc, method, by_kind in side_by_side(records, lambda r: r.label_mode):
        texts = [_cell(by_kind[kind]) if kind in by_kind else "" for kind in kinds]
        yield [MARKDOWN.escape(x) for x in (method, str(ipc), *texts)]


def _cell(record: Record) -> str:
    """Returns e.g. `61.0 ± 0.8 (n=3; random 58.2; 40,000 B of labels)`."""
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
