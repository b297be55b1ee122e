"""`dd-bench progress`, and the same lines during a sweep: how many jobs are done, and which failed."""

from __future__ import annotations

import argparse
import json
import shlex
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from dd_bench.cli.jobs import jobs_of
from dd_bench.cli.sweep_overrides import typed_argument


def headline(sweep: Path) -> str:
    """Returns e.g. `sweep: 3 of 12 done, 2 running, 1 failed, about 14 min to go`."""
    jobs = [job for _, job in jobs_of(sweep)]
    states = Counter(job.current_state() if job else "waiting" for job in jobs)
    ended = sum(states[s] for s in ("done", "skipped", "diverged", "failed"))
    text = [f"{states[s]} {s}" for s in ("running", "skipped", "diverged", "failed", "died") if states[s]]
    seconds = [job.seconds for job in jobs if job and job.seconds and job.state == "done"]
    if seconds and ended < len(jobs):
        # the median: the first job builds the teachers of all, and others wait for it
        rest = median(seconds) * (len(jobs) - ended) / max(1, states["running"])
        text.append(f"about {max(1, round(rest / 60))} min to go")
    return ", ".join([f"sweep: {states['done']} of {len(jobs)} done", *text])


def report(sweep: Path) -> str:
    """Returns the headline and the jobs that did not succeed, each with its reason."""
    lines = [headline(sweep)]
    for words, job in jobs_of(sweep):
        if job is None:
            continue
        state = job.current_state()
        if state == "running" and job.host != socket.gethostname():  # its process cannot be checked from here
            hours = (time.time() - job.started) / 3600
            lines.append(f"  running on {job.host} for {hours:.1f} h: {' '.join(words)}")
        if state in ("failed", "died", "diverged", "skipped"):
            lines.append(
                f"  {state}: {' '.join(words)}\n      {job.reason or 'its process no longer exists'}"
            )
    return "\n".join(lines)


def has_failed(sweep: Path) -> bool:
    """Whether a job of a sweep failed, or died."""
    return any(job is not None and job.current_state() in ("failed", "died") for _, job in jobs_of(sweep))


def progress_verb(arguments: Sequence[str]) -> int:
    """`dd-bench progress [OUT]`: progress of the sweeps of a folder, and failed jobs; 1 if there are any."""
    parser = argparse.ArgumentParser("dd-bench progress", description=progress_verb.__doc__)
    parser.add_argument(
        "out", nargs="?", type=Path, default=Path("runs"), help="`out` of the sweeps (default: runs)"
    )
    out = parser.parse_args(arguments).out
    sweeps = sorted((out / "sweeps").glob("*.json"), key=lambda p: p.stat().st_mtime)
    if not sweeps:
        sys.stderr.write(
            f"error: {out} holds no sweep. Start one with: dd-bench run -m method=random,dm ipc=1,10\n"
        )
        return 1
    failed = False
    for sweep in sweeps:
        try:
            table = json.loads(sweep.read_text())
            words = shlex.join(map(typed_argument, table["overrides"]))
            text = f"dd-bench {table['verb']} -m {words}\n{report(sweep)}\n"
        except (ValueError, TypeError, KeyError) as error:
            sys.stderr.write(f"ignored: {sweep} is not the file of a sweep: {error!r}\n")
            continue
        sys.stdout.write(text)
        failed |= has_failed(sweep)
    return int(failed)
