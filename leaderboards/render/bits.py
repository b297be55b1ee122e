"""Accuracy against stored bits: quantised versions of a set."""

from __future__ import annotations

from collections.abc import Sequence

from dd_bench.records.intervals import Difference
from dd_bench.records.record import Record

from ..core.bits import (
    MIN_NETWORKS,
    Precision,
    entropy_bits,
    fewest_lossless,
    file_bits,
    precision_of,
    precisions,
    stored_bits,
    tracks,
)
from ..core.budget import Budgets, budgets
from ..core.hyperparameters import CHOSEN, MARKS, origin
from ..core.row_labels import record_labels
from .cost import ranked_front
from .formatting import networks, number, with_marks
from .markup import MARKDOWN, markdown_table

_COMPRESSED = ["Entropy-coded", "Smallest file"]
"""Headers of columns that are omitted where no set of a table is smaller in this form."""
_WORTH = 0.99
"""Largest size in a compressed form, relative to the bits, that is shown."""
_HEADER = ["Method", "Images stored as", "Bits", *_COMPRESSED, "Mean ± std", "n"]


def precision_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return a title and a Markdown table of sets and their quantised versions, for each track and IPC with any."""
    known = budgets(records)
    found = []
    for track, group in tracks(records).items():
        rows, marks = _versions(group, known), mark_lines(_measured(group))
        for ipc, own in sorted(rows.items()):
            table = _table([*_HEADER, "Difference", "On the front", "Loses nothing"], own)
            last = ipc == max(rows)  # the marks are explained once
            text = "\n\n".join([table, *marks]) if last else table
            found.append((f"{track.title}, {track.model}: precision, IPC {ipc}", text))
    return found


def _measured(records: Sequence[Record]) -> list[Record]:
    """Return the sets that have quantised versions, and these."""
    pairs = precisions(records)
    return [r for original, versions in pairs for r in (original, *(v.record for v in versions)) if r]


def _versions(records: Sequence[Record], known: Budgets) -> dict[int, list[list[str]]]:
    """Return the rows of each IPC. The front is that of all IPCs together."""
    every = _measured(records)
    label_of = set_labels(every)
    front = ranked_front(every, [stored_bits(r) for r in every])
    on_front = {r.key: on for r, on in zip(every, front, strict=True)}
    found: dict[int, list[list[str]]] = {}
    for original, versions in precisions(records):
        best = fewest_lossless(versions)
        rows: list[tuple[Record, Precision | None]] = [(original, None)] if original else []
        for record, version in [*rows, *((v.record, v) for v in versions)]:
            row = [with_marks(label_of[record.key], [record]), *_costs(record, known)]
            row += [
                "" if version is None or version.difference is None else points(version.difference, record)
            ]
            row += ["yes" * on_front[record.key]]
            lost = "" if version is None else version.verdict
            row += [f"{lost}, fewest bits" if version is not None and version is best else lost]
            found.setdefault(record.ipc, []).append([MARKDOWN.escape(x) for x in row])
    return found


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    kept = [i for i, name in enumerate(header) if name not in _COMPRESSED or any(row[i] for row in rows)]
    return markdown_table([header[i] for i in kept], [[row[i] for i in kept] for row in rows], left=2)


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
                row += [_undecided(versions), "", "", ""]
            else:
                few = stored_bits(best.record)
                row += [precision_of(best.record, {}), f"{few:,}", f"{stored_bits(original) / few:.1f}"]
                row += [points(best.difference, best.record)]
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


def _undecided(versions: Sequence[Precision]) -> str:
    """Return why no version loses nothing, or why this is not shown."""
    measured = [v.difference for v in versions if v.is_measured and v.difference is not None]
    if not measured:
        return f"fewer than {MIN_NETWORKS} networks"
    if all(v.verdict in ("no", "") for v in versions):
        return "none of those measured"
    return f"not shown by {min(d.n for d in measured)} networks"


def set_labels(records: Sequence[Record]) -> dict[str, str]:
    """Return labels without the precision, which has a column of its own."""
    return record_labels(records, without=("stored",))


def mark_lines(records: Sequence[Record]) -> list[str]:
    """Return one line that explains the marks of `with_marks` on these records, or no line without marks."""
    choices = {origin(r).choice for r in records}
    texts = [f"[{mark}]: {CHOSEN[choice]}." for choice, mark in MARKS.items() if mark and choice in choices]
    return [MARKDOWN.escape(" ".join(texts))] if texts else []


def _costs(record: Record, known: Budgets) -> list[str]:
    """Return the precision, the bits, those in two compressed forms where they are at least 1 % fewer, mean and n."""
    s, bits = record.summary(), stored_bits(record)
    sizes = (entropy_bits(record), file_bits(record))
    more = ["" if size is None or size > _WORTH * bits else f"{size:,}" for size in sizes]
    mean = number([s.mean, s.std], record.main_metric)
    return [precision_of(record, known), f"{bits:,}", *more, mean, networks(record)]


def points(d: Difference, record: Record) -> str:
    """Return a difference with its 95 % interval, e.g. `-0.3 [-0.8, 0.2]`; in points of per cent for an accuracy."""
    texts = [number([x], record.main_metric) for x in (d.mean, d.low, d.high)]
    mean, low, high = (text if float(text) else text.removeprefix("-") for text in texts)  # no negative zero
    return f"{mean} [{low}, {high}]"
