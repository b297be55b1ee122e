"""`dd-bench progress`, and the report of a running sweep: the number of finished jobs and the failed jobs."""

from __future__ import annotations

import json
import shlex
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from dd_bench.cli.jobs import State, jobs_of
from dd_bench.cli.sweep_overrides import typed_argument
from dd_bench.runtime.command_help import command_parser
from dd_bench.runtime.terminal import sanitize


def headline(sweep: Path) -> str:
    """Return e.g. `sweep: 3 of 12 done, 2 running, 1 failed, about 14 min to go`."""
    jobs = [job for _, job in jobs_of(sweep)]
    states = Counter(job.current_state() if job else "waiting" for job in jobs)
    ended = sum(states[s] for s in ("done", "skipped", "diverged", "failed"))
    shown: tuple[State, ...] = ("running", "skipped", "diverged", "failed", "interrupted", "died")
    text = [f"{states[s]} {s}" for s in shown if states[s]]
    seconds = [job.seconds for job in jobs if job and job.seconds and job.state == "done"]
    if seconds and ended < len(jobs):
        # not the mean, because the first job takes longer: it builds the teachers for all jobs
        rest = median(seconds) * (len(jobs) - ended) / max(1, states["running"])
        text.append(f"about {max(1, round(rest / 60))} min to go")
    return ", ".join([f"sweep: {states['done']} of {len(jobs)} done", *text])


def report(sweep: Path) -> str:
    """Return the headline, the jobs running on other machines, and the unsuccessful jobs with their reasons."""
    lines = [headline(sweep)]
    for overrides, job in jobs_of(sweep):
        if job is None:
            continue
        text = " ".join(overrides)
        state = job.current_state()
        if state == "running" and job.host != socket.gethostname():  # its process cannot be checked from here
            hours = (time.time() - job.started) / 3600
            lines.append(f"  running on {job.host} for {hours:.1f} h: {text}")
            lines.append(
                "      This machine cannot check the process. If it has ended, start the sweep again"
            )
        if state in ("failed", "interrupted", "died", "diverged", "skipped"):
            lines.append(f"  {state}: {text}\n      {job.reason or 'its process no longer exists'}")
    return "\n".join(lines)


def has_failed(sweep: Path) -> bool:
    """Return whether a job of a sweep has failed or died."""
    return any(job is not None and job.current_state() in ("failed", "died") for _, job in jobs_of(sweep))


def is_stopped(sweep: Path) -> bool:
    """Return whether a sweep has no running job, although some of its jobs were stopped or have not started."""
    states = {job.current_state() if job else "waiting" for _, job in jobs_of(sweep)}
    return "running" not in states and bool(states & {"interrupted", "waiting"})


def progress_command(arguments: Sequence[str]) -> int:
    """Print the progress of the sweeps in a folder and their failed jobs; exit with status 1 if a job has failed."""
    parser = command_parser("progress", progress_command.__doc__, "dd-bench progress runs")
    parser.add_argument(
        "out",
        nargs="?",
        type=Path,
        default=Path("runs"),
        help="the value of `out` of the sweeps (default: runs)",
    )
    parser.add_argument(
        "--forget",
        action="store_true",
        help="remove the sweeps without running jobs from the list; records, sets and the states of jobs are kept",
    )
    args = parser.parse_args(arguments)
    out = args.out
    sweeps = sorted((out / "sweeps").glob("*.json"), key=lambda p: p.stat().st_mtime)
    if not sweeps:
        sys.stderr.write(
            f"error: {out} contains no sweep. Start one with: dd-bench run -m method=random,dm ipc=1,10\n"
        )
        return 1
    if args.forget:
        return _forget(sweeps)
    failed = unfinished = False
    for sweep in sweeps:
        try:
            content = json.loads(sweep.read_text())
            overrides = shlex.join(map(typed_argument, content["overrides"]))
            text = f"dd-bench {content['verb']} -m {overrides}\n{report(sweep)}\n"
        except (ValueError, TypeError, KeyError) as error:
            sys.stderr.write(
                sanitize(
                    f"warning: ignored {sweep}, which is not a valid sweep file: {error!r}. "
                    f"To remove it: {shlex.join(['rm', str(sweep)])}\n"
                )
            )
            continue
        sys.stdout.write(sanitize(text))
        failed |= has_failed(sweep)
        unfinished |= has_failed(sweep) or is_stopped(sweep)
    if unfinished:
        sys.stderr.write(
            "To run the failed and the missing jobs, start their sweep again, exactly as it is printed above. After a "
            "change of its overrides it is another sweep, and the old one stays in this list. To remove the sweeps "
            f"without running jobs from the list: {shlex.join(['dd-bench', 'progress', str(out), '--forget'])}\n"
        )
    return int(failed)


def _forget(sweeps: Sequence[Path]) -> int:
    """Delete the files of the sweeps without running jobs."""
    for sweep in sweeps:
        try:
            running = sum(job is not None and job.current_state() == "running" for _, job in jobs_of(sweep))
        except (ValueError, TypeError, KeyError):
            running = 0
        if running:
            sys.stdout.write(
                f"kept {sweep}: {running} job(s) are running. If their machine has stopped, remove it with: "
                f"{shlex.join(['rm', str(sweep)])}\n"
            )
        else:
            sweep.unlink()
            sys.stdout.write(f"removed {sweep}\n")
    return 0
