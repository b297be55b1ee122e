"""Check new records against other entries and against their synthetic sets.

A record must not repeat an entry, its board must have a random baseline, and the cards of its sets must match it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from math import ceil, prod
from pathlib import Path
from typing import Any

from dd_bench.records.config_diff import CHOICE, shipped_target
from dd_bench.records.record import Record
from dd_bench.synthetic.card import TENSORS, Card, check_decoding, find_damaged_file, read_card
from dd_bench.synthetic.tensor_file import TensorEntry, read_header

from ..core.budget import MAX_WIDTH, budgets, exceeds_ipc
from ..core.commands import control_command
from ..core.entries import CONTROL, REFERENCE, Track, entry_name, sets_in


def check_unique_scores(new: Sequence[Record], old: Sequence[Record]) -> None:
    """Check that no two records on the same board have the same sets and scores.

    Raises:
        ValueError: a new record has the sets and scores of another record with a different key.
    """
    known: dict[Any, Record] = {}
    for record in [*old, *new]:
        measurement = (
            Track.of(record),
            record.method,
            record.ipc,
            tuple(record.set_digests),
            tuple(record.scores),
        )
        other = known.setdefault(measurement, record)
        if record.status == "done" and record.set_digests and other.key != record.key:
            raise ValueError(
                f"record {record.key} has the same sets and scores as {entry_name(other)}, but a different key. "
                "Add only one of the two records"
            )


def check_baselines(new: Sequence[Record], every_record: Sequence[Record]) -> None:
    """Check that the boards of new records have a random baseline at the same IPC.

    Raises:
        ValueError: a baseline is missing. The message contains the command that measures the baseline.
    """
    have = {(Track.of(r), r.ipc) for r in every_record if r.method == CONTROL and r.status == "done"}
    missing: dict[tuple[Track, int], Record] = {}
    for record in new:
        track = Track.of(record)
        accepted = [track]
        if track.label_mode == "soft":  # these labels belong to the set, so random images have hard labels
            accepted.append(track._replace(label_mode="hard"))
        if record.method not in (CONTROL, REFERENCE) and not any((t, record.ipc) in have for t in accepted):
            missing.setdefault((accepted[-1], record.ipc), record)
    if missing:
        lines = [
            f"{track.title}, IPC {ipc}:\n    {control_command(r)}"
            for (track, ipc), r in sorted(missing.items())
        ]
        raise ValueError(
            "these boards have no random baseline to compare with. Measure it and add both records, or use "
            "--no-baseline:\n" + "\n".join(lines)
        )


def check_budget(new: Sequence[Record], every_record: Sequence[Record]) -> None:
    """Check that sets of images store no more than their IPC, see `exceeds_ipc`.

    Raises:
        ValueError: a set stores more. Its card then has another IPC, or does not agree with the record.
    """
    known = budgets(every_record)
    for record in new:
        if exceeds_ipc(record, known):
            raise ValueError(
                f"record {record.key} ({record.method} on {record.dataset}, IPC {record.ipc}) stores "
                f"{record.stored_bytes} bytes. A set of this IPC must have at most {MAX_WIDTH} times the bytes of "
                f"{record.ipc} real images per class. Distil and evaluate the set again with a larger ipc"
            )


def check_sets(records: Sequence[Record], folder: Path, paths: Sequence[Path] = ()) -> list[str]:
    """Check the files of all sets in a folder that belong to `records`, and return remarks on the missing sets.

    Args:
        records: the records.
        folder: folder of sets.
        paths: files of the records. The sets of a run are in the folder `sets` next to its `records`.

    Raises:
        ValueError: the hash of a file is wrong, or the card of a set does not match the record.
    """
    known = sets_in(folder)
    outputs = dict.fromkeys(p.parent.parent if len(p.parts) > 1 else p.resolve().parents[1] for p in paths)
    own = {digest: where for out in outputs for digest, where in sets_in(out / "sets").items()}
    return [remark for record in records for remark in _sets_of(record, known, own, folder)]


def _sets_of(record: Record, known: Mapping[str, Path], own: Mapping[str, Path], folder: Path) -> list[str]:
    for digest in record.set_digests:
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(
                f"record {record.key}: a set digest must have 64 hexadecimal digits, got {digest!r}"
            )
        if digest in known:
            _check_set(record, digest, known[digest])
    missing = [digest for digest in record.set_digests if digest not in known]
    if record.status == "done" and not record.set_digests:
        return [
            f"the record of {record.method} on {record.dataset} has no set digest, so it cannot be verified"
        ]
    if not missing:
        return []
    remark = (
        f"{len(missing)} set(s) of {record.method} on {record.dataset} are not in {folder}, the first is "
        f"{missing[0][:16]}. They cannot be verified, and the site shows no picture of them"
    )
    if found := sorted(str(own[digest]) for digest in missing if digest in own):
        to = folder / record.dataset
        return [
            f"{remark}. Copy them from the run:\n    mkdir -p {_quote(to)} && cp -r {_quote(*found)} {_quote(to)}"
        ]
    if changed := candidate_card(record, folder):
        return [f"{remark}. {changed} has the same method, dataset and IPC. Was this card changed?"]
    return [f"{remark}. They are not next to the record either; copy them from the machine of the run"]


def _quote(*paths: Path | str) -> str:
    return shlex.join(map(str, paths))


def candidate_card(record: Record, folder: Path) -> Path | None:
    """Return the only card in a folder that has the method, dataset and IPC of a record.

    Return None if there is no such card, if there are several, or if the record has several sets. Use this function if
    no set has the digest in the record: the set may have been changed after the evaluation.
    """
    name = f"{record.method}-{record.dataset}-ipc{record.ipc}-*/card.json"
    found = [*folder.glob(name), *folder.glob(f"*/{name}")]
    return found[0] if len(found) == 1 and len(record.set_digests) == 1 else None


def _check_set(record: Record, digest: str, folder: Path) -> None:
    card = read_card(folder)
    if wrong_file := find_damaged_file(folder, card):
        path, sha256 = wrong_file
        raise ValueError(
            f"{path} is missing or was changed: its sha256 must be {sha256[:12]} as in the card. Copy the set again"
        )
    expected = {"ipc": record.ipc, "dataset": record.dataset, "dataset_digest": record.real_digest}
    for key, value in expected.items():
        if (actual := getattr(card, key)) != value:
            raise ValueError(f"record {record.key}: {key} of its set {folder} must be {value}, got {actual}")
    if card.set.get("whole") and record.method != REFERENCE:
        raise ValueError(
            f"record {record.key}: its set {folder} is the whole training set, so its method must be {REFERENCE!r}, "
            f"got {record.method!r} at IPC {record.ipc}"
        )
    # stored_bytes of a record are those of its first set
    sizes = card.stored_bytes if digest == record.set_digests[0] else {}
    if wrong := [f"{k} {v}" for k, v in sizes.items() if record.stored_bytes.get(k) != v]:
        raise ValueError(
            f"record {record.key}: stored_bytes of its set {folder} must be {record.stored_bytes}, "
            f"got {', '.join(wrong)}"
        )
    _check_stored_values(card, folder)
    if record.label_mode in ("hard", "soft") and (mode := _label_mode(folder, card)) != record.label_mode:
        raise ValueError(
            f"record {record.key}: label_mode of its set {folder} must be {record.label_mode!r}, got {mode!r}"
        )
    mine, its = record.config.get("method"), card.config.get("method")
    distilled_in_run = record.config.get("set") is None
    if distilled_in_run and isinstance(its, dict) and mine and not _same_method(mine, its):
        keys = sorted(k for k in mine | its if mine.get(k) != its.get(k))
        raise ValueError(
            f"record {record.key} and the card of its set {folder} must have the same method configuration, but "
            f"differ in {', '.join(keys)}"
        )


def _check_stored_values(card: Card, folder: Path) -> None:
    """Check that a set of images stores no more values than its IPC, and decodes them as its method does.

    Loading a set checks the same and more, but needs torch.
    """
    shape = card.set.get("image_shape")
    if shape is None or card.set.get("whole"):
        return
    if not isinstance(shape, list) or not all(type(side) is int and side > 0 for side in shape):
        raise ValueError(f"image_shape of the set {folder} must be a list of integers >= 1, got {shape!r}")
    header = _header(folder, card)
    stored = sum(prod(entry.shape) for name, entry in header.items() if name != "labels")
    one = max(1, len(card.class_names)) * prod(shape)
    if stored > card.ipc * one:
        raise ValueError(
            f"ipc in the card of {folder} must be at least {ceil(stored / one)}, got {card.ipc}. The set stores "
            f"{stored:,} values, and one image of each class has {one:,} values in total"
        )
    check_decoding({name: card.set.get(name, 1) for name in ("factor", "canvas")}, card.config)


def _same_method(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Return whether two configurations have the same values, and their YAML files name the same class."""
    names = [str(values.get(CHOICE)) for values in (a, b)]
    values = [{k: v for k, v in config.items() if k != CHOICE} for config in (a, b)]
    same = names[0] == names[1] or len({shipped_target("method", name) or name for name in names}) == 1
    return same and values[0] == values[1]


def _label_mode(folder: Path, card: Card) -> str:
    """Return "soft" if the stored labels are floating point (distributions), "hard" if they are integers (classes)."""
    header = _header(folder, card)
    if "labels" not in header:
        raise ValueError(f"{folder / TENSORS} must contain the tensor 'labels', got only {sorted(header)}")
    return "soft" if header["labels"].dtype.startswith("F") else "hard"


def _header(folder: Path, card: Card) -> dict[str, TensorEntry]:
    try:
        return read_header(folder / TENSORS, card.size_limit(TENSORS))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / TENSORS} is damaged: {error}") from error
