"""Choose entries for `dd-bench verify --cheapest N`: those whose networks take the least time to train again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dd_bench.records.record import Record

from ..core.entries import TEACHER_MODES, load_entry, sets_in, visible
from ..core.verified import Verdict, machine


class Candidate(NamedTuple):
    """An entry that can be verified, and the seconds that training its networks took when it was measured."""

    path: Path
    record: Record
    seconds: float


def candidates(
    paths: Iterable[Path], sets: Path, networks: int | None, not_on: str | None = None
) -> tuple[list[Candidate], dict[str, int]]:
    """Return the entries in files and folders that can be verified, cheapest first, and why others are omitted.

    An entry needs one set that is in the folder `sets`, an evaluator with a number of networks, and labels that do not
    come from teachers.

    Args:
        paths: entries, folders of entries, and folders with a folder for each dataset.
        sets: folder of sets.
        networks: number of networks to train for each entry; None: all.
        not_on: a machine, see `machine`; entries that were measured on it are omitted. None: no machine.

    Returns:
        The candidates, and the number of omitted entries by reason.

    Raises:
        ValueError: a file is not an entry, see `load_entry`.
    """
    stored = sets_in(sets)
    found, omitted = [], Counter[str]()
    for path in _files(paths):
        record = load_entry(path)
        if reason := _reason(record, stored.keys(), not_on):
            omitted[reason] += 1
            continue
        total = record.summary().num_networks
        share = min(networks or total, total) / total
        found.append(Candidate(path, record, share * record.seconds.get("evaluate", 0.0)))
    return sorted(found, key=lambda c: (c.seconds, c.path.name)), dict(sorted(omitted.items()))


def is_verified(verdict: Verdict | None, record: Record, networks: int | None) -> bool:
    """Return whether a verdict covers all networks of an entry, or at least `networks` of them."""
    total = record.summary().num_networks
    return verdict is not None and len(verdict.networks) >= min(networks or total, total)


def plan(chosen: Sequence[Candidate], done: int, omitted: dict[str, int]) -> str:
    """Describe which entries will be verified, and how long it takes on a machine like those of the entries."""
    minutes = sum(c.seconds for c in chosen) / 60
    lines = [
        f"{len(chosen)} entries to verify, {done} verified before. Their networks took {minutes:.0f} minutes on the "
        "machines of the entries"
    ]
    lines += [f"    {c.seconds:6.0f} s  {c.path.name}" for c in chosen]
    if omitted:
        lines.append("omitted: " + ", ".join(f"{count} {reason}" for reason, count in omitted.items()))
    return "\n".join(lines) + "\n"


def _files(paths: Iterable[Path]) -> list[Path]:
    """Return the files among `paths`, and the files `*.json` in the folders among them and their subfolders."""
    found: dict[Path, None] = {}
    for path in paths:
        inside = [p for pattern in ("*.json", "*/*.json") for p in visible(path, pattern)]
        found.update(dict.fromkeys(inside if path.is_dir() else [path]))
    return list(found)


def _reason(record: Record, stored: Iterable[str], not_on: str | None) -> str:
    """Return why an entry cannot be verified, or ''."""
    if record.status != "done":
        return "without scores"
    if len(record.set_digests) != 1:
        return "with several sets, which are not stored"
    if "num_networks" not in record.config.get("evaluator", {}):
        return "with an evaluator that has no number of networks"
    if record.label_mode in TEACHER_MODES:
        return "with labels of teachers"
    if record.set_digests[0] not in stored:
        return "whose set is not stored"
    return "measured on this kind of machine" if machine(record.device) == not_on else ""
