"""`dd-bench verify PATH ...`: checks sets, records and entries, and trains networks of an entry anew.

What comes out is written beside the entries (`leaderboards/verified`), and boards show it.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from dd_bench.records.record import Record, load_record
from dd_bench.runtime.terminal import sanitize

from ..core.commands import evaluate_command, run_command
from ..core.entries import ROOT, Track, load_entry, sets_in
from ..core.verified import Verdict, judge, save_verdict
from .submission import changed_card


def main(arguments: Sequence[str]) -> int:
    """`dd-bench verify PATH ...`: checks sets, records and entries; of entries, trains networks anew and compares."""
    parser = argparse.ArgumentParser("dd-bench verify", description=main.__doc__)
    parser.add_argument("path", nargs="+", type=Path, help="sets' folders, records, entries")
    parser.add_argument(
        "--networks", type=int, help="of an entry to train anew (default: all); 0: check it only"
    )
    parser.add_argument("--sets", default=str(ROOT / "sets"), help="folder or URL with the sets of entries")
    parser.add_argument(
        "--replace", action="store_true", help="also a verdict of more networks, or one out of tolerance"
    )
    parser.add_argument("--cache", default="runs/cache", help="folder with teachers of earlier runs")
    args = parser.parse_args(arguments)
    if args.networks is not None and args.networks < 0:
        parser.error(f"--networks {args.networks}: wanted 0 or more")
    failed = 0
    for path in args.path:
        if not _is_entry(path):
            from dd_bench.cli import inspect

            failed |= inspect.verify([str(path)])
            if path.is_file() and (args.networks is not None or args.sets != parser.get_default("sets")):
                sys.stderr.write(
                    f"{path} is no entry, so its set was not looked at and nothing trained. As an entry it is named "
                    "DATASET-METHOD-ipcN-DIGEST.json, as `dd-bench leaderboard add` and the site do\n"
                )
                failed = 1
            continue
        try:
            record = load_entry(path)
            sys.stdout.write(f"ok  {path}: {record.status}, as it was added\n")
            if record.status != "done":
                continue
            if len(record.set_digests) != 1:
                failed |= _of_several(record, args.networks)
                continue
            try:
                folder = _set_of(record, args.sets)
            except _NotThere as error:
                if args.networks != 0:
                    raise
                sys.stdout.write(f"    not looked at: {sanitize(str(error))}\n")
                continue
            sys.stdout.write(f"ok  {folder}\n")
            if args.networks != 0:
                failed |= _again(record, folder, path.resolve(), args)
        except (ValueError, OSError, ImportError) as error:
            sys.stderr.write(f"refused: {sanitize(str(error))}\n")
            failed = 1
    return failed


def _is_entry(path: Path) -> bool:
    named = re.search(r"-ipc[0-9]+-[0-9a-f]{16}\.json$", path.name) is not None
    return path.is_file() and (
        named or (path.suffix == ".json" and "entries" in (p.name for p in path.resolve().parents[:2]))
    )


def _verified_beside(path: Path) -> Path:
    """Returns the folder of verdicts of the entries that an entry is one of."""
    inside = next((p for p in path.parents[:2] if p.name == "entries"), path.parent)
    return inside.parent / "verified"


def _of_several(record: Record, networks: int | None) -> int:
    """Says how an entry of several sets, which are not kept, is measured again; returns 1 if that was to be done."""
    command = run_command(record) if record.config.get("set") is None else None
    sys.stdout.write(
        f"    not trained anew: it is of {len(record.set_digests)} sets, which are not kept"
        + (f". They and its networks are made again by:\n    {command}\n" if command else "\n")
    )
    return int(networks != 0)


def _again(record: Record, folder: Path, path: Path, args: argparse.Namespace) -> int:
    verdict = retrain(record, folder, args.networks, args.cache)
    sys.stdout.write(f"{verdict.told()}\n")
    try:
        written = str(save_verdict(verdict, _verified_beside(path), args.replace))
    except FileExistsError as error:  # nobody is to lose by a short look what more networks said, or worse
        written = str(error)
    sys.stdout.write(f"    {written}\n")
    return int(verdict.verdict == "out of tolerance")


def retrain(record: Record, folder: Path, count: int | None, cache: str) -> Verdict:
    """Trains the first `count` networks of an entry, or all, anew on its set, in a process of its own, and compares.

    Raises:
        ValueError: its evaluator has no number of networks, its configuration is none of this suite, or the run failed.
    """
    if "num_networks" not in record.config.get("evaluator", {}):
        raise ValueError(f"evaluator {record.evaluator} has no number of networks, and is not trained anew")
    every = record.summary().num_networks
    count = min(count or every, every)
    words = shlex.split(evaluate_command(record, str(folder.resolve())))[1:]
    words = [w for w in words if not w.startswith("evaluator.num_networks=")]
    with tempfile.TemporaryDirectory() as out:
        words += [f"evaluator.num_networks={count}", f"out={out}", f"cache={Path(cache).resolve()}"]
        done = subprocess.run([sys.executable, "-m", "dd_bench", *words])
        found = list((Path(out) / "records").glob("*.json"))
        if done.returncode or not found:
            raise ValueError(f"training anew failed, see above: dd-bench {shlex.join(words)}")
        again = load_record(found[0])
    if Track.of(again) != Track.of(record):
        raise ValueError(
            f"trained anew it is on another board: {Track.of(again).title}; the entry says {Track.of(record).title}"
        )
    values = {s.network: s.value for s in again.scores if s.metric == again.main_metric}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return judge(record, values, again.code, again.device, now)


class _NotThere(ValueError):
    """The set of an entry is not where it was looked for."""


def _set_of(record: Record, sets: str) -> Path:
    """Returns the folder of the one set of an entry, pulled first if it is elsewhere."""
    from dd_bench.hub.hub import pull, sets_at

    (wanted,) = record.set_digests
    if "://" in sets:
        for found in sets_at(sets):
            if found.digest == wanted:
                return _fitting(record, pull(found.url, digest=wanted))
    elif folder := sets_in(Path(sets)).get(wanted):
        return _fitting(record, folder)
    changed = None if "://" in sets else changed_card(record, Path(sets))
    raise _NotThere(
        f"set {wanted[:16]} of the entry is not in {sets}. Use --sets FOLDER, or the URL where it was pushed"
        + (f". {changed} is of its method, dataset and IPC: was that card changed?" if changed else "")
    )


def _fitting(record: Record, folder: Path) -> Path:
    """Returns the folder of a set that is whole and what the entry says."""
    from dd_bench.synthetic import storage

    _, card = storage.load(folder)
    said = {"dataset": record.dataset, "ipc": record.ipc, "dataset_digest": record.real_digest}
    for name, value in said.items():
        if getattr(card, name) != value:
            raise ValueError(f"the entry says {name} {value}, its set {folder} {getattr(card, name)}")
    return folder
