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
from dd_bench.synthetic.card import TENSORS, Card, find_damaged_file, read_card
from dd_bench.synthetic.method_limits import COMPENSATORS, check_method, decodes, is_shipped
from dd_bench.synthetic.tensor_file import TensorEntry, read_header

from ..core.budget import MAX_WIDTH, budgets, exceeds_ipc, other_whole_set
from ..core.commands import control_command
from ..core.entries import CONTROL, REFERENCE, Track, entry_name, sets_in, visible


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
    """Check that sets of images store no more than their IPC, see `exceeds_ipc`, and the size of whole training sets.

    Raises:
        ValueError: a set stores more. Its card then has another IPC, or does not agree with the record. Or two records
            of the whole training set of one dataset store different numbers of bytes.
    """
    known = budgets(every_record)
    for record in new:
        if (other := other_whole_set(record, every_record)) is not None:
            raise ValueError(
                f"record {record.key} is of the whole training set of {record.dataset}, so it must have the stored "
                f"bytes of {entry_name(other)}, {other.stored_bytes}, got {record.stored_bytes}"
            )
    for record in new:
        if exceeds_ipc(record, known):
            raise ValueError(
                f"record {record.key} ({record.method} on {record.dataset}, IPC {record.ipc}) stores "
                f"{record.stored_bytes} bytes. A set of this IPC must have at most {MAX_WIDTH} times the bytes of "
                f"{record.ipc} real images per class, and labels of as many images. Distil and evaluate the set again "
                "with a larger ipc"
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
        if found_at := known.get(digest) or own.get(digest):
            _check_set(record, digest, found_at)
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
    found = [*visible(folder, name), *visible(folder, f"*/{name}")]
    return found[0] if len(found) == 1 and len(record.set_digests) == 1 else None


def _check_set(record: Record, digest: str, folder: Path) -> None:
    card = read_card(folder)
    if wrong_file := find_damaged_file(folder, card):
        path, sha256 = wrong_file
        raise ValueError(
            f"{path} is missing or was changed: its sha256 must be {sha256[:12]} as in the card. Copy the set again"
        )
    expected = {
        "ipc": record.ipc,
        "dataset": record.dataset,
        "dataset_digest": record.real_digest,
    }
    for key, value in expected.items():
        if (actual := getattr(card, key)) != value:
            raise ValueError(f"record {record.key}: {key} of its set {folder} must be {value}, got {actual}")
    if _method_class(card.method) != _method_class(record.method):
        raise ValueError(
            f"record {record.key}: method of its set {folder} must be {record.method}, got {card.method}"
        )
    if bool(card.set.get("whole")) != (record.method == REFERENCE):
        raise ValueError(
            f"record {record.key}: only a set of the method {REFERENCE!r} is the whole training set (whole=true), got "
            f"whole={bool(card.set.get('whole'))} for method {record.method!r} and its set {folder}"
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
    made_from = [config.get("base") for config in (record.config, card.config)]
    if not _same_base(*made_from):
        raise ValueError(
            f"record {record.key} and the card of its set {folder} must have the same base set, got {made_from[0]} and "
            f"{made_from[1]}"
        )


def _same_base(a: Any, b: Any) -> bool:
    """Return whether two descriptions of a base set agree. Older ones have no `config`."""
    if isinstance(a, dict) and isinstance(b, dict) and ("config" in a) != ("config" in b):
        a, b = ({key: value for key, value in x.items() if key != "config"} for x in (a, b))
    return bool(a == b)


def _check_stored_values(card: Card, folder: Path) -> None:
    """Check that a set stores no more samples and values than its IPC, and decodes them as its method does.

    Loading a set checks the same and more, but needs torch.

    Raises:
        ValueError: the set stores more, its method cannot return such a set, or it decodes a stored sample to several
            training samples by a method of another package, whose parameters are not known here.
    """
    header = _header(folder, card)
    if not card.set.get("whole"):
        _check_size(card, folder, header)
    decoding = {name: card.set.get(name, 1) for name in ("factor", "canvas", "weighting")}
    if COMPENSATORS in header and len(shape := header[COMPENSATORS].shape) > 1:
        decoding[COMPENSATORS] = shape[1]
    whole = bool(card.set.get("whole"))
    check_method(card.method, card.config, kind=card.kind, whole=whole, decoding=decoding)
    if decodes(decoding) and not is_shipped(card.method):
        raise ValueError(
            f"the set {folder} has {', '.join(f'{k}={decoding[k]}' for k in decodes(decoding))}, which must be those "
            f"of its method, but {card.method!r} is not a method of dd_bench, so they cannot be checked. Add the "
            "method to conf/method, or keep the record on boards of your own: dd-bench leaderboard build --entries "
            "runs/records"
        )


def _check_size(card: Card, folder: Path, header: Mapping[str, TensorEntry]) -> None:
    """Check that a set stores no more values (images) and no more labels than its IPC."""
    classes = max(1, len(card.class_names))
    shape = card.set.get("image_shape")
    if shape is not None:
        if not isinstance(shape, list) or not all(type(side) is int and side > 0 for side in shape):
            raise ValueError(
                f"image_shape of the set {folder} must be a list of integers >= 1, got {shape!r}"
            )
        stored = sum(prod(entry.shape) for name, entry in header.items() if name not in ("labels", *_CODES))
        if bits := _bits_of_codes(card, folder, header):
            stored += (
                max(0, prod(header["codes"].shape) * 8 - 7) // bits
            )  # the last byte may have unused bits
        one = classes * prod(shape)
        if stored > card.ipc * one:
            raise ValueError(
                f"ipc in the card of {folder} must be at least {ceil(stored / one)}, got {card.ipc}. The set stores "
                f"{stored:,} values, and one image of each class has {one:,} values in total"
            )
    count = (header["labels"].shape or (0,))[0] if "labels" in header else 0
    if count > card.ipc * classes:
        raise ValueError(
            f"ipc in the card of {folder} must be at least {ceil(count / classes)}, got {card.ipc}. The set stores "
            f"{count:,} samples of {classes} classes"
        )


_CODES = ("codes", "minimum", "step", "group")


def _bits_of_codes(card: Card, folder: Path, header: Mapping[str, TensorEntry]) -> int | None:
    """Return the bits per value of a quantised set, whose parameters count in its bytes; None for other sets."""
    if card.kind != "codes":
        return None
    bits = card.set.get("bits")
    if type(bits) is not int or not 1 <= bits <= 8 or any(name not in header for name in _CODES[:-1]):
        raise ValueError(f"the set {folder} must have codes with 1 to 8 bits, got bits={bits!r}")
    return bits


def _same_method(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Return whether two configurations have the same values, and their YAML files name the same class."""
    names = [str(values.get(CHOICE)) for values in (a, b)]
    values = [{k: v for k, v in config.items() if k != CHOICE} for config in (a, b)]
    same = _method_class(names[0]) == _method_class(names[1])
    return same and values[0] == values[1]


def _method_class(name: str) -> str:
    """Return the class of a shipped method, which several YAML files can have, or the name of another method."""
    return shipped_target("method", name) or name


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
