"""Accuracy against stored bits: quantised versions of a set, and different methods at equal bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dd_bench.records.intervals import Difference
from dd_bench.records.record import Record

from ..core.bits import (
    EqualBits,
    Precision,
    entropy_bits,
    equal_bits,
    fewest_lossless,
    file_bits,
    precision_of,
    precisions,
    stored_bits,
    tracks,
)
from ..core.budget import Budgets, budgets
from ..core.differences import difference
from ..core.row_labels import record_labels
from .cost import ranked_front
from .formatting import networks, number, with_marks
from .markup import MARKDOWN, markdown_table

_COSTS = ["Images stored as", "Bits", "Entropy-coded", "Smallest file", "Mean ± std", "n"]
"""Headers of the columns of `_costs`."""
_REFERENCE = "kmeans"
"""Method with which the sets of equal bits are compared."""


def precision_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return a title and a Markdown table of sets and their quantised versions, for each track that has any."""
    header = ["Method", "IPC", *_COSTS, "Difference", "On the front", "Loses nothing"]
    known = budgets(records)
    return [
        (
            f"{track.title}, {track.model}: precision",
            markdown_table(header, list(_versions(group, known)), left=3),
        )
        for track, group in tracks(records).items()
    ]


def _versions(records: Sequence[Record], known: Budgets) -> Iterator[list[str]]:
    found = precisions(records)
    every = [
        r for original, versions in found for r in (original, *(v.record for v in versions)) if r is not None
    ]
    label_of = _labels(every)
    front = ranked_front(every, [stored_bits(r) for r in every])
    on_front = {r.key: on for r, on in zip(every, front, strict=True)}
    for original, versions in found:
        best = fewest_lossless(versions)
        rows: list[tuple[Record, Precision | None]] = [(original, None)] if original else []
        for record, version in [*rows, *((v.record, v) for v in versions)]:
            row = [label_of[record.key], str(record.ipc), *_costs(record, known)]
            row += [
                "" if version is None or version.difference is None else _points(version.difference, record)
            ]
            row += ["yes" * on_front[record.key]]
            measured = version is not None and version.is_measured
            lost = "" if version is None or not measured else "yes" if version.loses_nothing else "no"
            row += [f"{lost}, fewest bits" if version is not None and version is best else lost]
            yield [MARKDOWN.escape(x) for x in row]


def fewest_bits_table(records: Sequence[Record]) -> str:
    """Return the fewest bits of each quantised set that lose nothing as a Markdown table; '' without quantised sets."""
    rows = []
    for track, group in tracks(records).items():
        for original, versions in precisions(group):
            if original is None:
                continue
            row = [
                track.dataset,
                track.protocol,
                original.method,
                str(original.ipc),
                f"{stored_bits(original):,}",
            ]
            best = fewest_lossless(versions)
            if best is None or best.difference is None:
                row += ["none of those measured", "", "", ""]
            else:
                few = stored_bits(best.record)
                row += [precision_of(best.record, {}), f"{few:,}", f"{stored_bits(original) / few:.1f}"]
                row += [_points(best.difference, best.record)]
            rows.append([MARKDOWN.escape(x) for x in row])
    header = [
        "Dataset",
        "Protocol",
        "Method",
        "IPC",
        "Bits as returned",
        "Fewest bits that lose nothing",
        "Bits",
    ]
    return markdown_table([*header, "Times smaller", "Difference"], rows, left=3) if rows else ""


def equal_bits_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return a title and a Markdown table for each track: sets of several methods with nearly the same bits."""
    header = ["Budget", "Method", "IPC", *_COSTS, f"Difference from {_REFERENCE}"]
    known = budgets(records)
    found = []
    for track, group in tracks(records).items():
        rows = [row for budget in equal_bits(group, known) for row in _at_budget(budget, known)]
        if rows:
            title = f"{track.title}, {track.model}: equal bits"
            found.append((title, markdown_table(header, rows, left=4)))
    return found


def _at_budget(budget: EqualBits, known: Budgets) -> Iterator[list[str]]:
    label_of = _labels(budget.records)
    reference = reference_of(budget.records)
    name = f"IPC {budget.ipc} × {'float32' if budget.width == 32 else '8 bits'}"
    for record in budget.records:
        row = [name, with_marks(label_of[record.key], [record]), str(record.ipc), *_costs(record, known)]
        comparable = (
            reference and reference is not record and min(len(record.sample()), len(reference.sample())) > 1
        )
        row += [_points(difference(record, reference), record) if reference and comparable else ""]
        yield [MARKDOWN.escape(x) for x in row]


def reference_of(records: Sequence[Record]) -> Record | None:
    """Return the record of k-means with the most images, which has the fewest bits per image; None without one."""
    found = [r for r in records if r.method == _REFERENCE]
    return max(found, key=lambda r: (r.ipc, -stored_bits(r), r.key), default=None)


def bits_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return the tables of the page `bits`: precision, and equal bits."""
    return [*precision_tables(records), *equal_bits_tables(records)]


def _labels(records: Sequence[Record]) -> dict[str, str]:
    """Return labels without the precision, which has a column of its own."""
    return record_labels(records, without=("stored",))


def _costs(record: Record, known: Budgets) -> list[str]:
    s = record.summary()
    more = ["" if bits is None else f"{bits:,}" for bits in (entropy_bits(record), file_bits(record))]
    mean = number([s.mean, s.std], record.main_metric)
    return [precision_of(record, known), f"{stored_bits(record):,}", *more, mean, networks(record)]


def _points(d: Difference, record: Record) -> str:
    """Return a difference with its 95 % interval, e.g. `-0.3 [-0.8, 0.2]`; in points of per cent for an accuracy."""
    mean, low, high = (number([x], record.main_metric) for x in (d.mean, d.low, d.high))
    return f"{mean} [{low}, {high}]"
