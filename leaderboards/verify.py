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

from dd_bench.record import Record, load_record

from .commands import evaluate_command
from .entries import load_entry
from .verified import Verdict, judge, save_verdict

_HERE = Path(__file__).parent


def main(arguments: Sequence[str]) -> int:
    """`dd-bench verify PATH ...`: checks sets, records and entries; of entries, trains networks anew and compares."""
    parser = argparse.ArgumentParser("dd-bench verify", description=main.__doc__)
    parser.add_argument("path", nargs="+", type=Path, help="sets' folders, records, entries")
    parser.add_argument("--networks", type=int, default=2, help="of an entry to train anew; 0: check it only")
    parser.add_argument("--sets", default=str(_HERE / "sets"), help="folder or URL with the sets of entries")
    args = parser.parse_args(arguments)
    if args.networks < 0:
        parser.error(f"--networks {args.networks}: wanted 0 or more")
    failed = 0
    for path in args.path:
        if not _is_entry(path):
            from dd_bench import catalogue

            failed |= catalogue.verify([str(path)])
            continue
        try:
            record = load_entry(path)
            sys.stdout.write(f"ok  {path}: {record.status}, as it was added\n")
            if args.networks and record.status == "done":
                failed |= _again(record, path, args.networks, args.sets)
        except (ValueError, OSError) as error:
            sys.stderr.write(f"refused: {error}\n")
            failed = 1
    return failed


def _is_entry(path: Path) -> bool:
    return path.is_file() and re.search(r"-ipc[0-9]+-[0-9a-f]{16}\.json$", path.name) is not None


def _again(record: Record, path: Path, count: int, sets: str) -> int:
    folder = _set_of(record, sets)
    verdict = retrain(record, folder, count)
    written = save_verdict(verdict, path.parent.parent / "verified")
    sys.stdout.write(f"{verdict.told()}\n    {written}\n")
    return int(verdict.verdict != "verified")


def retrain(record: Record, folder: Path, count: int) -> Verdict:
    """Trains the first `count` networks of an entry anew on its set, in a process of its own, and compares.

    Raises:
        ValueError: its evaluator has no number of networks, or the run failed; the message has its last lines.
    """
    if "num_networks" not in record.config.get("evaluator", {}):
        raise ValueError(f"evaluator {record.evaluator} has no number of networks, and is not trained anew")
    count = min(count, record.summary().num_networks)
    words = shlex.split(evaluate_command(record, str(folder.resolve())))[1:]
    words = [w for w in words if not w.startswith("evaluator.num_networks=")]
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "dd_bench", *words, f"evaluator.num_networks={count}", f"out={out}"]
        done = subprocess.run(command, capture_output=True, text=True)
        found = list((Path(out) / "records").glob("*.json"))
        if done.returncode or not found:
            last = "\n".join(f"{done.stdout}{done.stderr}".strip().splitlines()[-6:])
            raise ValueError(f"training anew failed: {shlex.join(command[2:])}\n{last}")
        again = load_record(found[0])
    values = {s.network: s.value for s in again.scores if s.metric == again.main_metric}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return judge(record, values, again.code, again.device, now)


def _set_of(record: Record, sets: str) -> Path:
    """Returns the folder of the one set of an entry, pulled first if it is elsewhere."""
    from dd_bench import artifact
    from dd_bench.sharing import pull, sets_at

    if len(record.set_digests) != 1:
        raise ValueError(f"the entry is of {len(record.set_digests)} sets, and one alone is trained on anew")
    (wanted,) = record.set_digests
    if "://" in sets:
        for found in sets_at(sets):
            if found.digest == wanted:
                return _fitting(record, pull(found.url, digest=wanted))
    else:
        for folder in sorted(p.parent for p in Path(sets).glob("*/card.json")):
            if artifact.digest(folder) == wanted:
                return _fitting(record, folder)
    raise ValueError(
        f"set {wanted[:16]} of the entry is not in {sets}. Use --sets FOLDER, or the URL where it was pushed"
    )


def _fitting(record: Record, folder: Path) -> Path:
    """Returns the folder of a set that is whole and what the entry says."""
    from dd_bench import artifact

    _, card = artifact.load(folder)
    for name in ("method", "dataset", "ipc"):
        if getattr(card, name) != getattr(record, name):
            raise ValueError(
                f"the entry says {name} {getattr(record, name)}, its set {folder} {getattr(card, name)}"
            )
    return folder
