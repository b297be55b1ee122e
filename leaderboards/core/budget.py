"""Compare the stored bytes of a set with those of a selection of IPC samples per class.

A selection stores images with 8 bits per value, graphs with the smallest integer types, and one class per sample. Its
size is taken from the random baseline of the same dataset, so that no dataset must be loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from dd_bench.records.record import Record

from .entries import CONTROL, REFERENCE, has_stored_precision

SHARED = "preprocess."
"""Start of the names of fitted transforms, which belong to the dataset and are stored with every set."""
TEACHER_LABELS = "teacher labels"
"""Labels of teachers. They belong to the protocol, so a selection has them too."""
MAX_WIDTH = 4
"""A stored value has at most 32 bits, so images of a set take at most four times the bytes of images with 8 bits."""

T = TypeVar("T", int, float)
Budgets = Mapping[tuple[str, int], Mapping[str, float]]


def budgets(records: Iterable[Record]) -> Budgets:
    """Return the bytes of the random baseline by part, for each digest of a real set and each IPC.

    For sets of images, whose size is proportional to their IPC, IPC 0 has the bytes of one image per class. Of several
    baselines, the smallest is used.
    """
    found: dict[tuple[str, int], dict[str, float]] = {}

    def add(key: tuple[str, int], parts: dict[str, float]) -> None:
        if key not in found or sum(parts.values()) < sum(found[key].values()):
            found[key] = parts

    for r in records:
        parts = {k: float(v) for k, v in _own_parts(r).items() if k != TEACHER_LABELS}
        if r.method == CONTROL and r.status == "done" and parts and not has_stored_precision(r):
            add((r.real_digest, r.ipc), parts)
            if "images" in parts:
                add((r.real_digest, 0), {k: v / r.ipc for k, v in parts.items()})
    return found


def relative_size(record: Record, known: Budgets) -> float | None:
    """Return the stored bytes of a set, divided by those of IPC samples of its dataset per class.

    Hard labels of images are not counted, see `needed`. Return None for the whole training set, and if there is no
    baseline.
    """
    budget, parts = _budget(record, known), _own_parts(record)
    if not budget or not parts or record.method == REFERENCE:
        return None
    if "images" in budget:
        budget, parts = needed(budget, "hard"), needed(parts, record.label_mode)
    return sum(parts.values()) / sum(budget.values())


def needed(parts: Mapping[str, T], label_mode: str) -> dict[str, T]:
    """Return the parts of a set without hard labels.

    They take no bits: a set has the same number of images of each class, so they can be stored class by class.
    """
    return {name: size for name, size in parts.items() if name != "labels" or label_mode == "soft"}


def exceeds_ipc(record: Record, known: Budgets) -> bool:
    """Return whether a set of images stores more values than IPC images of its dataset per class.

    The images, compensators and decoders of the set then take more than 32 bits per value of IPC images, or its labels
    are those of more than IPC images per class: classes of 64 bits or, if labels can be soft, k floats of 32 bits.
    """
    budget, parts = _budget(record, known), _own_parts(record)
    if not budget or "images" not in budget or record.method == REFERENCE:
        return False
    values = sum(size for name, size in parts.items() if name not in ("labels", TEACHER_LABELS))
    if values > MAX_WIDTH * budget["images"]:
        return True
    labels = budget.get("labels", 0.0)
    classes = labels / (8 * record.ipc)  # the labels of the baseline are classes
    allowed = labels if record.label_mode == "hard" else labels * max(1.0, classes / 2)
    return bool(labels) and parts.get("labels", 0) > allowed


def other_whole_set(record: Record, records: Iterable[Record]) -> Record | None:
    """Return a record of the same whole training set whose set has another size. All such sets should be equal."""

    def split(r: Record) -> tuple[str, object]:
        return r.real_digest, (r.config.get("dataset") or {}).get("val_fraction")

    if record.method != REFERENCE or record.status != "done":
        return None
    same = (r for r in records if (r.method, r.status) == (REFERENCE, "done") and split(r) == split(record))
    return next((r for r in same if _sizes(r) != _sizes(record)), None)


def _sizes(record: Record) -> dict[str, int]:
    return {name: size for name, size in _own_parts(record).items() if name != TEACHER_LABELS}


def size_text(relative: float) -> str:
    """Return e.g. `0.95×`, `4×` or `120×`."""
    return f"{relative:.2g}×" if relative < 99.5 else f"{relative:,.0f}×"


def _budget(record: Record, known: Budgets) -> Mapping[str, float] | None:
    one = known.get((record.real_digest, 0))
    return {k: v * record.ipc for k, v in one.items()} if one else known.get((record.real_digest, record.ipc))


def _own_parts(record: Record) -> dict[str, int]:
    return {name: size for name, size in record.stored_bytes.items() if not name.startswith(SHARED)}
