"""`dd-bench verify PATH ...`: check sets, records and entries, and retrain the networks of entries.

Verdicts are saved next to the entries, in `leaderboards/verified`, and shown on boards.
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

from dd_bench.records.overrides import LOCATION_KEYS, to_override
from dd_bench.records.record import Record, load_record
from dd_bench.runtime.command_help import command_parser
from dd_bench.runtime.terminal import sanitize

from ..core.commands import evaluate_command, run_command
from ..core.entries import ROOT, Track, load_entry, sets_in
from ..core.verified import Verdict, compare_retrained, save_verdict, verdicts
from .cheapest import candidates, is_verified, plan
from .submission import candidate_card


def main(arguments: Sequence[str]) -> int:
    """Check sets, records and entries. Retrain the networks of entries and compare their scores."""
    parser = command_parser(
        "verify",
        main.__doc__,
        "dd-bench verify runs/sets/NAME",
        "dd-bench verify leaderboards/entries/digits/ENTRY.json --networks 5",
        "dd-bench verify --cheapest 10 leaderboards/entries",
    )
    parser.add_argument(
        "path",
        nargs="+",
        help="folders of sets, or files of records or entries; with --cheapest also folders of entries. Also "
        "dataset.root=FOLDER or dataset.download=true, to locate or download the real data",
    )
    parser.add_argument(
        "--cheapest",
        type=int,
        metavar="N",
        help="verify the N entries that take the least time, except those that are verified already. The same command "
        "continues where it was stopped",
    )
    parser.add_argument(
        "--other-machines",
        action="store_true",
        help="with --cheapest: only entries that were measured on another processor or another number of cores",
    )
    parser.add_argument(
        "--list", action="store_true", help="with --cheapest: print the entries and their cost, and stop"
    )
    parser.add_argument(
        "--networks",
        type=int,
        help="number of networks to retrain for each entry (default: all); 0 only checks the files",
    )
    parser.add_argument(
        "--sets", default=str(ROOT / "sets"), help="folder or URL that contains the sets of entries"
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="also replace a verdict from more networks, or one that is out of tolerance",
    )
    parser.add_argument("--cache", default="runs/cache", help="folder with the teachers of earlier runs")
    args = parser.parse_intermixed_args(arguments)  # overrides may follow the options
    if args.networks is not None and args.networks < 0:
        parser.error(f"--networks must be an integer >= 0, got {args.networks}")
    if args.cheapest is not None and (args.cheapest < 1 or args.networks == 0):
        parser.error(
            "--cheapest must be an integer >= 1, and retrains networks, got "
            f"--cheapest {args.cheapest} --networks {args.networks}. Example: --cheapest 40"
        )
    if args.cheapest is None and (args.list or args.other_machines):
        parser.error("--list and --other-machines require --cheapest. Example: --cheapest 40 --list")
    try:
        paths, args.location = _split(args.path)
    except ValueError as error:
        parser.error(str(error))
    try:
        paths = _cheapest(paths, args) if args.cheapest is not None else paths
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return max((_verify(path, args, parser.get_default("sets")) for path in paths), default=0)


def _cheapest(paths: Sequence[Path], args: argparse.Namespace) -> list[Path]:
    """Return the entries of `--cheapest` that have no verdict yet, and print them."""
    if "://" in args.sets:
        raise ValueError(f"--cheapest requires a folder of sets, got --sets {args.sets}")
    here = None
    if args.other_machines:
        from dd_bench.runtime.runtime import default_device_name  # imports torch

        here = default_device_name()
    found, omitted = candidates(paths, Path(args.sets), args.networks, here)
    chosen = found[: args.cheapest]
    folders = {_verdict_folder(c.path.resolve()) for c in chosen}
    known = {digest: verdict for folder in folders for digest, verdict in verdicts(folder).items()}
    new = [c for c in chosen if not is_verified(known.get(c.record.digest), c.record, args.networks)]
    sys.stdout.write(sanitize(plan(new, len(chosen) - len(new), omitted)))
    return [] if args.list else [c.path for c in new]


def _verify(path: Path, args: argparse.Namespace, default_sets: str) -> int:
    """Check one set, record or entry, and retrain the networks of an entry. Return 1 if a check failed."""
    failed = 0
    if not _is_entry(path):
        from dd_bench.cli import inspect

        failed = inspect.verify([str(path)])
        if path.is_file() and (args.networks is not None or args.sets != default_sets):
            message = (
                f"{path} is not an entry, so its set was not checked and no network was retrained. The name of an "
                "entry is DATASET-METHOD-ipcN-DIGEST.json. To make an entry of a record: "
                f"dd-bench leaderboard add {path}\n"
            )
            sys.stderr.write(sanitize(message))
            return 1
        return failed
    try:
        record = load_entry(path)
        sys.stdout.write(sanitize(f"ok  {path}: {record.status}, unchanged since it was added\n"))
        if record.status != "done":
            return 0
        if len(record.set_digests) != 1:
            return _several_sets(record, args.networks)
        try:
            folder = _set_of(record, args.sets)
        except _SetNotFoundError as error:
            if args.networks != 0:
                raise
            sys.stdout.write(f"    not checked: {sanitize(str(error))}\n")
            return 0
        sys.stdout.write(sanitize(f"ok  {folder}\n"))
        return _retrain_and_save(record, folder, path.resolve(), args) if args.networks != 0 else 0
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"failed: {sanitize(str(error))}\n")
        return 1


def _split(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Split the arguments into paths, and overrides that tell where the real data are.

    Raises:
        ValueError: an override could change what is measured, or there is no path.
    """
    allowed = [f"dataset.{key}" for key in LOCATION_KEYS]
    paths, overrides = [], []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or Path(word).exists():
            paths.append(Path(word))
        elif key in allowed:
            overrides.append(f"{key}={to_override(_parse(value), key)}")
        else:
            raise ValueError(
                f"{word} is not a path. verify accepts only overrides that tell where the data are: "
                f"{', '.join(f'{name}=...' for name in allowed)}"
            )
    if not paths:
        raise ValueError("PATH is missing. Example: dd-bench verify leaderboards/entries/DATASET/ENTRY.json")
    return paths, overrides


def _parse(value: str) -> str | bool:
    return value.lower() == "true" if value.lower() in ("true", "false") else value


def _is_entry(path: Path) -> bool:
    has_entry_name = re.search(r"-ipc[0-9]+-[0-9a-f]{16}\.json$", path.name) is not None
    return path.is_file() and (
        has_entry_name
        or (path.suffix == ".json" and "entries" in (p.name for p in path.resolve().parents[:2]))
    )


def _verdict_folder(path: Path) -> Path:
    """Return the folder of verdicts for an entry: `verified` next to its folder of entries."""
    entries = next((p for p in path.parents[:2] if p.name == "entries"), path.parent)
    return entries.parent / "verified"


def _several_sets(record: Record, networks: int | None) -> int:
    """Print how to reproduce an entry with several sets, which are not stored. Return 1 if retraining was requested."""
    command = run_command(record) if record.config.get("set") is None else None
    message = f"    not retrained: the entry has {len(record.set_digests)} sets, which are not stored"
    message += f". This command distils and evaluates them again:\n    {command}\n" if command else "\n"
    sys.stdout.write(sanitize(message))
    return int(networks != 0)


def _retrain_and_save(record: Record, folder: Path, path: Path, args: argparse.Namespace) -> int:
    verdict = retrain(record, folder, args.networks, args.cache, args.location)
    sys.stdout.write(sanitize(f"{verdict.summary()}\n"))
    try:
        result = str(save_verdict(verdict, _verdict_folder(path), args.replace))
    except (
        FileExistsError
    ) as error:  # a short check never replaces a verdict from more networks, or a failed one
        result = str(error)
    sys.stdout.write(sanitize(f"    {result}\n"))
    return int(verdict.verdict == "out of tolerance")


def retrain(
    record: Record, folder: Path, count: int | None, cache: str, location: Sequence[str] = ()
) -> Verdict:
    """Retrain the first `count` networks of an entry on its set, in a subprocess, and compare the scores.

    If `count` is None, all networks are retrained.

    Raises:
        ValueError: the evaluator has no key `num_networks`, overrides cannot express the configuration, or the run
            failed.
    """
    if "num_networks" not in record.config.get("evaluator", {}):
        raise ValueError(
            f"retraining requires an evaluator with the key num_networks, got {record.evaluator}. "
            "To check the files without retraining, use --networks 0"
        )
    total = record.summary(record.all_runs_metric).num_networks
    count = min(count or total, total)
    words = shlex.split(evaluate_command(record, str(folder.resolve())))[1:]
    words = [w for w in words if not w.startswith("evaluator.num_networks=")]
    with tempfile.TemporaryDirectory() as out:
        words += [
            *_runtime_overrides(record),
            f"evaluator.num_networks={count}",
            f"out={out}",
            f"cache={Path(cache).resolve()}",
            *location,
        ]
        done = subprocess.run([sys.executable, "-m", "dd_bench", *words])
        found = list((Path(out) / "records").glob("*.json"))
        if done.returncode or not found:
            raise ValueError(
                f"retraining failed, see the output above. The command was: dd-bench {shlex.join(words)}"
            )
        retrained = load_record(found[0])
    if Track.of(retrained) != Track.of(record):
        raise ValueError(
            f"the retrained record must be on the board of the entry, {Track.of(record).title}, "
            f"got {Track.of(retrained).title}"
        )
    values = {s.network: s.value for s in retrained.scores if s.metric == record.all_runs_metric}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return compare_retrained(record, values, retrained.code, retrained.device, now)


def _runtime_overrides(record: Record) -> list[str]:
    """Return the overrides that give the threads, processes and precision of a record on a CPU.

    With them, a machine of the same kind repeats the values of the entry. Precisions other than fp32 depend on the
    hardware, so `runtime.precision=auto` chooses them.
    """
    runtime = record.config.get("runtime", {})
    words = [
        f"runtime.{key}={value}"
        for key in ("threads", "workers")
        if type(value := runtime.get(key)) is int and value > 0
    ]
    return words + ["runtime.precision=fp32"] * ("(fp32 networks" in record.device)


class _SetNotFoundError(ValueError):
    """The set of an entry was not found."""


def _set_of(record: Record, sets: str) -> Path:
    """Return the folder of the only set of an entry. A set at a URL is pulled first."""
    from dd_bench.hub.hub import pull, sets_at

    (digest,) = record.set_digests
    if "://" in sets:
        for found in sets_at(sets):
            if found.digest == digest:
                return _checked_set(record, pull(found.url, digest=digest))
    elif folder := sets_in(Path(sets)).get(digest):
        return _checked_set(record, folder)
    changed = None if "://" in sets else candidate_card(record, Path(sets))
    raise _SetNotFoundError(
        f"set {digest[:16]} of the entry is not in {sets}. Add --sets with the folder or URL that contains it"
        + (
            f". {changed} has the same method, dataset and IPC, so this card may have been changed"
            if changed
            else ""
        )
    )


def _checked_set(record: Record, folder: Path) -> Path:
    """Check the files of a set, compare its card with the entry, and return the folder of the set."""
    from dd_bench.synthetic import storage

    _, card = storage.load(folder)
    expected = {"dataset": record.dataset, "ipc": record.ipc, "dataset_digest": record.real_digest}
    for name, value in expected.items():
        if (actual := getattr(card, name)) != value:
            raise ValueError(f"{name} of the set {folder} must be {value} as in the entry, got {actual}")
    return folder
