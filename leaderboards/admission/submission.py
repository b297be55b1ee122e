"""What is asked of a record among others before it becomes an entry: its sets, a baseline, no twin."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from dd_bench.records.config_diff import CHOICE, shipped_target
from dd_bench.records.record import Record
from dd_bench.synthetic.card import TENSORS, find_damaged_file, read_card

from ..core.boards import CONTROL, REFERENCE
from ..core.commands import control_command
from ..core.entries import Track, entry_name, sets_in


def check_twins(new: Sequence[Record], old: Sequence[Record]) -> None:
    """Refuses what is measured already under another key: the same values of the same sets on one board.

    Raises:
        ValueError: which entry it is.
    """
    known: dict[Any, Record] = {}
    for record in [*old, *new]:
        what = (Track.of(record), record.method, record.ipc, tuple(record.set_digests), tuple(record.scores))
        other = known.setdefault(what, record)
        if record.status == "done" and record.set_digests and other.key != record.key:
            raise ValueError(
                f"record {record.key} has the values of {entry_name(other)}, of the same sets, under another key"
            )


def check_baselines(new: Sequence[Record], every_record: Sequence[Record]) -> None:
    """Refuses records on a board that has no row of random images at their IPC.

    Raises:
        ValueError: which row is missing, and the command that makes it.
    """
    have = {(Track.of(r), r.ipc) for r in every_record if r.method == CONTROL and r.status == "done"}
    missing: dict[tuple[Track, int], Record] = {}
    for record in new:
        track = Track.of(record)
        fitting = [track]
        if track.label_mode == "soft":  # labels of the set's own: random images have their classes
            fitting.append(track._replace(label_mode="hard"))
        if record.method not in (CONTROL, REFERENCE) and not any((t, record.ipc) in have for t in fitting):
            missing.setdefault((fitting[-1], record.ipc), record)
    if missing:
        lines = [
            f"{track.title}, IPC {ipc}:\n    {control_command(r)}"
            for (track, ipc), r in sorted(missing.items())
        ]
        raise ValueError(
            "without a row of random images nobody can tell what a method adds. Measure it and add both, or use "
            "--no-baseline:\n" + "\n".join(lines)
        )


def check_sets(records: Sequence[Record], folder: Path) -> list[str]:
    """Checks those of their sets that lie in a folder, hash by hash; returns remarks on those that do not.

    Raises:
        ValueError: a set is damaged, or not what its record says that it measured.
    """
    known = sets_in(folder)
    return [remark for record in records for remark in _sets_of(record, known, folder)]


def _sets_of(record: Record, known: Mapping[str, Path], folder: Path) -> list[str]:
    for digest in record.set_digests:
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"record {record.key}: {digest!r} is no digest of a set")
        if digest in known:
            _check_set(record, digest, known[digest])
    missing = [digest for digest in record.set_digests if digest not in known]
    if record.status == "done" and not record.set_digests:
        return [f"{record.method} on {record.dataset} names no set: nobody can verify it"]
    if not missing:
        return []
    changed = changed_card(record, folder)
    hint = f". Was {changed} changed, which is of its method, dataset and IPC?" if changed else ""
    return [
        f"{len(missing)} set(s) of {record.method} on {record.dataset} are not in {folder}, the first "
        f"{missing[0][:16]}: nobody can verify it, and the site shows no picture. Copy the folder of the run there:\n"
        f"    cp -r runs/sets/{record.method}-{record.dataset}-ipc{record.ipc}-* "
        f"{shlex.quote(str(folder / record.dataset))}{hint}"
    ]


def changed_card(record: Record, folder: Path) -> Path | None:
    """Returns the card of the one set that may be a record's and is not: of its method, dataset and IPC alone."""
    name = f"{record.method}-{record.dataset}-ipc{record.ipc}-*/card.json"
    found = [*folder.glob(name), *folder.glob(f"*/{name}")]
    return found[0] if len(found) == 1 and len(record.set_digests) == 1 else None


def _check_set(record: Record, digest: str, folder: Path) -> None:
    card = read_card(folder)
    if wrong_file := find_damaged_file(folder, card):
        path, wanted = wrong_file
        raise ValueError(f"{path} is missing or was changed: its card says sha256 {wanted[:12]}")
    wants = {"ipc": record.ipc, "dataset": record.dataset, "dataset_digest": record.real_digest}
    for key, value in wants.items():
        if (said := getattr(card, key)) != value:
            raise ValueError(f"record {record.key} says {key} {value}, its set {folder} is of {said}")
    if card.set.get("whole") and record.method != REFERENCE:
        raise ValueError(
            f"record {record.key}: its set {folder} is the whole training set, and its method {record.method!r} at "
            f"IPC {record.ipc} is not {REFERENCE!r}"
        )
    size = (
        card.stored_bytes if digest == record.set_digests[0] else {}
    )  # a record has the bytes of its first set
    if wrong := [f"{k} {v}" for k, v in size.items() if record.stored_bytes.get(k) != v]:
        raise ValueError(
            f"record {record.key} stores {record.stored_bytes} bytes, its set {folder} {', '.join(wrong)}"
        )
    if record.label_mode in ("hard", "soft") and (kind := _labels_in(folder)) != record.label_mode:
        raise ValueError(
            f"record {record.key} says label_mode {record.label_mode!r}, its set {folder} has {kind} labels"
        )
    asked, made = record.config.get("method"), card.config.get("method")
    if (
        record.config.get("set") is None
        and isinstance(made, dict)
        and asked
        and not _same_method(asked, made)
    ):
        keys = sorted(k for k in asked | made if asked.get(k) != made.get(k))
        raise ValueError(
            f"record {record.key} says it made its set with other {', '.join(keys)} than the card of {folder}"
        )


def _same_method(asked: Mapping[str, Any], made: Mapping[str, Any]) -> bool:
    """Whether two configurations make the same set: the same values, and YAML files that call the same method."""
    names = [str(values.get(CHOICE)) for values in (asked, made)]
    values = [{k: v for k, v in found.items() if k != CHOICE} for found in (asked, made)]
    same = names[0] == names[1] or len({shipped_target("method", name) or name for name in names}) == 1
    return same and values[0] == values[1]


def _labels_in(folder: Path) -> str:
    """Returns the kind of labels in a set's file: a class is a whole number of whatever size, a distribution is not."""
    try:
        with safe_open(folder / TENSORS, framework="numpy") as tensors:
            return "soft" if "F" in tensors.get_slice("labels").get_dtype() else "hard"
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{folder / TENSORS} is damaged: {error}") from error
