"""Accuracy against the stored bits of labels: every kind of labels of the same sets, with one training recipe.

Kinds of labels: hard (no bits in addition to the classes), static (one label per image), replay (one per view; fewer
bits with fewer stored epochs, batches or logits, or with fewer bits per logit), and online (no stored labels, but the
weights of the teachers, which are needed during training and are therefore counted).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dd_bench.records.label_keys import DEFAULTS, unused_keys
from dd_bench.records.record import Record

from ..core.entries import BASELINES
from ..core.row_labels import record_labels
from .cost import pareto_front
from .formatting import networks, number
from .labels import LABEL_MODES, early_stops, label_groups
from .markup import MARKDOWN, markdown_table

_WEIGHTS = "teacher bytes"
"""Size of the weights of the teachers of online labels in a record."""


class LabelPoint(NamedTuple):
    """The accuracy of one set with one kind of labels, and the cost of these labels."""

    method: str
    ipc: int
    labels: str
    record: Record
    bits: int  # stored labels of teachers
    teacher_bits: int  # weights of teachers that are needed during training; 0 if they are not known
    forwards: int  # teacher forward passes while one network is trained

    @property
    def is_online(self) -> bool:
        """Whether teachers are needed during training."""
        return self.record.label_mode == LABEL_MODES[-1]

    @property
    def cost(self) -> int | None:
        """Bits that these labels need: stored labels, or the weights of the teachers; None if they are not known."""
        return None if self.is_online and not self.teacher_bits else self.bits + self.teacher_bits

    @property
    def order(self) -> tuple[int, bool, int, str, str]:
        """Position of the kind of labels in a table."""
        return self.cost or 0, self.is_online, self.forwards, self.labels, self.record.key


def label_points(records: Sequence[Record]) -> list[tuple[str, list[LabelPoint]]]:
    """Return a title and the points of each group with at least two kinds of labels, one of them stored.

    Of several records of one set with the same labels, the one with the most networks is shown.
    """
    found, teachers = [], _teacher_bits(records)
    for title, group in label_groups(records, None):
        label_of = record_labels(group, without=("teacher", "teachers", "weights", "evaluator", "numbers"))
        usual = Counter(_labels(r).get("temperature") for r in group).most_common(1)[0][0]
        points: dict[tuple[str, int, str], LabelPoint] = {}
        for r in sorted(group, key=lambda r: (r.summary().num_networks, r.created, r.key)):
            size = 8 * r.stored_bytes.get("teacher labels", 0)
            weights = teachers.get(_digests(r), 0) if r.label_mode == LABEL_MODES[-1] else 0
            labels = labels_of(r, usual)
            point = LabelPoint(label_of[r.key], r.ipc, labels, r, size, weights, r.teacher_forwards)
            points[point.method, point.ipc, point.labels] = point
        shown = sorted(points.values(), key=lambda p: (p.ipc, p.method, p.order))
        if len({p.labels for p in shown}) > 1 and any(p.bits for p in shown):
            found.append((title, shown))
    return found


def _teacher_bits(records: Sequence[Record]) -> dict[tuple[str, ...], int]:
    """Return the bits of the weights of each group of teachers. Older records do not contain them."""
    return {_digests(r): 8 * r.sizes[_WEIGHTS] for r in records if r.sizes.get(_WEIGHTS)}


def _digests(record: Record) -> tuple[str, ...]:
    """Return the digests of the teachers of a record, sorted; their names, if a digest is missing."""
    return tuple(sorted(t.digest or t.name for t in record.teachers))


def labels_of(record: Record, temperature: float | None = None) -> str:
    """Return the kind of labels with the values that differ from the defaults, e.g. `replay, pool=4`.

    The temperature is included if it differs from `temperature`.
    """
    labels, kind = _labels(record), record.label_mode
    unused = unused_keys({**labels, "kind": kind})
    parts = [kind]
    for key, default in DEFAULTS.items():
        value = labels.get(key, default)
        if key not in unused and value != default:
            parts.append(f"{key}={_text(value)}")
    own = labels.get("temperature")
    if "temperature" not in unused and own is not None and own != temperature:
        parts.append(f"temperature={own:g}")
    stops = sorted(set(early_stops(record).values())) if kind != "hard" else []
    if stops:
        parts.append(f"teacher.epoch={'/'.join(map(str, stops))}")
    return ", ".join(parts)


def _labels(record: Record) -> Mapping[str, Any]:
    labels: Mapping[str, Any] = record.config["protocol"]["labels"]
    return labels


def _text(value: Any) -> str:
    """Return a value of a key as short text: phases as soft-hard-soft, a temperature schedule by its factor."""
    if isinstance(value, list):
        return "-".join(str(labels) for labels, _ in value)
    if isinstance(value, dict):
        return f"{value.get('decay'):g} every {value.get('every')}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def label_bits_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return a title and a Markdown table for each group of `label_points` and each IPC with two kinds of labels.

    Rows are kinds of labels, columns are methods. A method with one kind of labels has a column only if it is a
    baseline. A result on the Pareto front of its method is bold: no other kind of labels has at most as many bits
    and at least the same accuracy. Online labels have the bits of their teachers.
    """
    found = []
    for title, points in label_points(records):
        for ipc in sorted({p.ipc for p in points}):
            own = [p for p in points if p.ipc == ipc]
            kinds = Counter(p.method for p in own)  # a method has one point for each kind of labels
            if max(kinds.values()) > 1:
                left_out = sorted(m for m in kinds if kinds[m] == 1 and m not in BASELINES)
                found.append((f"{title}, IPC {ipc}", _table(own, left_out)))
    return found


def _table(points: Sequence[LabelPoint], left_out: Sequence[str]) -> str:
    points = [p for p in points if p.method not in left_out]
    methods = sorted({p.method for p in points}, key=method_order)
    rows: dict[str, dict[str, LabelPoint]] = defaultdict(dict)
    for p in sorted(points, key=lambda p: p.order):
        rows[p.labels][p.method] = p
    best = {p.record.key for method in methods for p in front([p for p in points if p.method == method])}
    counts = Counter(networks(p.record) for p in points)
    usual = counts.most_common(1)[0][0]
    header = ["Labels", "Bits of labels", "Bits of teachers", "Teacher forwards"]
    body = []
    for labels, by_method in rows.items():
        found = list(by_method.values())
        cells = [_cell(by_method.get(m), best, usual) for m in methods]
        row = [labels, _range(p.bits for p in found), ""]
        row[2] = (
            "?"
            if all(p.cost is None for p in found)
            else _range(p.teacher_bits for p in found if p.cost is not None)
        )
        row.append(_range(p.forwards for p in found))
        body.append([*map(MARKDOWN.escape, row), *cells])
    table = markdown_table([*header, *map(MARKDOWN.escape, methods)], body, left=1)
    note = f"n={usual} networks, unless a cell has another n."
    if left_out:
        note += f" Without a column, because they have one kind of labels: {MARKDOWN.escape(', '.join(left_out))}."
    return f"{table}\n\n{note}"


def _cell(point: LabelPoint | None, best: set[str], usual: str) -> str:
    """Return e.g. `**61.0 ± 0.8**`, or `61.0 ± 0.8 (n=3)` for another number of networks than the usual one."""
    if point is None:
        return ""
    s = point.record.summary()
    text = MARKDOWN.escape(number([s.mean, s.std], point.record.main_metric))
    text = f"**{text}**" if point.record.key in best else text
    own = networks(point.record)
    return text if own == usual else f"{text} (n={own})"


def _range(values: Iterator[int]) -> str:
    """Return a number, or the smallest and the largest of several: sets that yield more images have more labels."""
    found = sorted(set(values))
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def method_order(method: str) -> tuple[int, str]:
    """Return the position of a method: baselines first."""
    return BASELINES.index(method) if method in BASELINES else len(BASELINES), method


def front(points: Sequence[LabelPoint]) -> list[LabelPoint]:
    """Return the points on the Pareto front of bits and accuracy, sorted by bits.

    Online labels are left out if the size of their teachers is not known. The points are labels of the same sets, so
    those with hyper-parameters chosen on test data are included.
    """
    known = sorted((p for p in points if p.cost is not None), key=lambda p: p.order)
    on = pareto_front([p.cost or 0 for p in known], [p.record.summary().mean for p in known])
    return [p for p, is_on in zip(known, on, strict=True) if is_on]


def curves(points: Sequence[LabelPoint]) -> dict[tuple[int, str], tuple[list[LabelPoint], list[LabelPoint]]]:
    """Return the points whose bits are known, sorted by bits, and the others, which are online, by IPC and method."""
    found: dict[tuple[int, str], tuple[list[LabelPoint], list[LabelPoint]]] = {}
    for p in points:
        known, unknown = found.setdefault((p.ipc, p.method), ([], []))
        (unknown if p.cost is None else known).append(p)
    return found
