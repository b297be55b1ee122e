"""What is asked of a record before it becomes an entry, beside its schema: a known protocol, sets, a baseline."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from dd_bench.record import Record
from dd_bench.shipped import shipped_config

from .boards import CONTROL, REFERENCE
from .commands import control_command
from .entries import Track


def check_protocol(record: Record) -> None:
    """Refuses a protocol that nobody else can follow; a changed one is known, and has a board of its own.

    Raises:
        ValueError: no such protocol is shipped, or its version is still to come.
    """
    name = record.protocol.name.partition("(")[0]
    shipped = shipped_config("protocol", name)
    if not shipped:
        raise ValueError(
            f"protocol {name!r} is none of conf/protocol, and its numbers compare with nothing. Measure under one of "
            "`dd-bench list protocol`, or add yours there first"
        )
    if record.protocol.version > shipped["version"]:
        raise ValueError(
            f"protocol {name} v{record.protocol.version}: this version of dd_bench "
            f"knows v{shipped['version']}. Update it"
        )


def check_baselines(new: Sequence[Record], all_of_them: Sequence[Record]) -> None:
    """Refuses records on a board that has no row of random images at their IPC.

    Raises:
        ValueError: which row is missing, and the command that makes it.
    """
    have = {(Track.of(r), r.ipc) for r in all_of_them if r.method == CONTROL and r.status == "done"}
    missing: dict[tuple[Track, int], Record] = {}
    for record in new:
        if record.method not in (CONTROL, REFERENCE) and (Track.of(record), record.ipc) not in have:
            missing.setdefault((Track.of(record), record.ipc), record)
    if missing:
        lines = [
            f"{track.title}, IPC {ipc}:\n    {control_command(r)}"
            for (track, ipc), r in sorted(missing.items())
        ]
        raise ValueError(
            "without a row of random images nobody can tell what a method adds. Measure it and add both, or use "
            "--no-baseline:\n" + "\n".join(lines)
        )


def check_sets(record: Record, folder: Path) -> list[str]:
    """Checks those of its sets that lie in a folder, hash by hash; returns remarks on those that do not.

    Raises:
        ValueError: a set is damaged, or not what the record says that it measured.
    """
    remarks = []
    known = {hashlib.sha256(p.read_bytes()).hexdigest(): p.parent for p in folder.glob("*/card.json")}
    for digest in record.set_digests:
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"record {record.key}: {digest!r} is no digest of a set")
        if digest not in known:
            remarks.append(
                f"set {digest[:16]} is not in {folder}: nobody can verify it. Copy its folder there, or push it"
            )
            continue
        card = json.loads((known[digest] / "card.json").read_text())
        for name, wanted in card["sha256"].items():
            path = known[digest] / name
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
                raise ValueError(f"{path} is missing or was changed: its card says sha256 {wanted[:12]}")
        if (card["ipc"], card["dataset"]) != (record.ipc, record.dataset):
            raise ValueError(
                f"record {record.key} says {record.dataset} at IPC {record.ipc}, its set {known[digest]} is of "
                f"{card['dataset']} at IPC {card['ipc']}"
            )
    if len(remarks) > 1:
        remarks = [f"{len(remarks)} sets of {record.method} are not in {folder}: nobody can verify them"]
    return remarks
