"""Files with the state of sweeps and of their jobs. All processes and machines that run the jobs share these files.

    sweeps/<id>.json        the overrides of each job of a sweep
    sweeps/jobs/<id>.json   the state of a job, with its reason and seconds

Both are in the output folder `out` of the runs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dd_bench.runtime.files import canonical, content_key, write_atomic

"""Environment variable with the path of the running sweep's file. The processes of its jobs inherit it."""

CONTINUE = "stopped by a signal; start the sweep again to continue"
"""Reason of the state `interrupted`."""
_STOP_SECONDS = 60.0  # within which a job saves its state after SIGTERM

State = Literal["running", "done", "skipped", "diverged", "failed", "interrupted", "died", "waiting"]


class Job(BaseModel):
    """The state of one job, stored in `sweeps/jobs/<id>.json`.

    Attributes:
        verb: the command, e.g. `run`.
        started: Unix time in seconds.
        outputs: files and folders written by a job with state `done`.
        config: digest of the composed configuration and of `NUMBERS_VERSION`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    verb: str
    overrides: list[str]
    state: State
    reason: str | None = None
    started: float
    seconds: float | None = None
    host: str
    pid: int
    outputs: list[str] = []
    config: str = ""

    def current_state(self) -> State:
        """Return the state, or `died` if the job ran on this machine and its process no longer exists."""
        if self.state == "running" and self.host == socket.gethostname() and not _is_alive(self.pid):
            return "died"
        return self.state

    def is_complete(self) -> bool:
        """Return whether the state is `done` and all outputs exist."""
        return self.state == "done" and all(Path(p).exists() for p in self.outputs)


def job_id(command: str, overrides: Sequence[str]) -> str:
    """Return the id of a job, which does not depend on the order of the overrides."""
    return content_key([command, sorted(overrides)])


def new_job(command: str, overrides: Sequence[str], **values: Any) -> Job:
    """Return the state of a job that runs in this process on this machine."""
    return Job(verb=command, overrides=list(overrides), host=socket.gethostname(), pid=os.getpid(), **values)


def save_job(out: Path, job: Job) -> None:
    """Write `sweeps/jobs/<id>.json`."""
    _write(out / "sweeps" / "jobs" / f"{job_id(job.verb, job.overrides)}.json", job.model_dump(mode="json"))


def read_job(out: Path, ident: str) -> Job | None:
    """Return the job with the id `ident`, or None if it has not started or its file is not valid."""
    try:
        return Job.model_validate_json((out / "sweeps" / "jobs" / f"{ident}.json").read_bytes())
    except (OSError, ValidationError):
        return None


def mark_interrupted(out: Path, command: str, overrides: Sequence[str]) -> None:
    """Set the state of a job of this process, which a signal has stopped, to `interrupted`."""
    if job := read_job(out, job_id(command, overrides)):
        save_job(out, job.model_copy(update={"state": "interrupted", "reason": CONTINUE}))


def stop_jobs(sweep: Path) -> None:
    """Send SIGTERM to the running jobs of a sweep on this machine, and wait until they have saved their state."""
    out = sweep.parent.parent
    for overrides, job in jobs_of(sweep):
        if job is not None and job.state == "running" and _in_other_process(job):
            os.kill(job.pid, signal.SIGTERM)
            end = time.monotonic() + _STOP_SECONDS
            ident = job_id(job.verb, overrides)
            while job is not None and job.current_state() == "running" and time.monotonic() < end:
                time.sleep(0.2)
                job = read_job(out, ident)
            if job is not None and job.current_state() == "died":  # before it could handle the signal
                save_job(out, job.model_copy(update={"state": "interrupted", "reason": CONTINUE}))


def _in_other_process(job: Job) -> bool:
    return job.host == socket.gethostname() and job.pid != os.getpid() and _is_alive(job.pid)


def complete_jobs(out: Path, command: str) -> dict[str, Job]:
    """Return the complete jobs of a command, by the digest of their configuration."""
    jobs = [read_job(out, path.stem) for path in (out / "sweeps" / "jobs").glob("*.json")]
    return {job.config: job for job in jobs if job is not None and job.verb == command and job.is_complete()}


def save_sweep(out: Path, command: str, overrides: list[str], jobs: list[list[str]]) -> Path:
    """Write `sweeps/<id>.json` and return its path."""
    path = out / "sweeps" / f"{content_key([job_id(command, job) for job in jobs])}.json"
    _write(path, {"verb": command, "overrides": overrides, "jobs": jobs})
    return path


def jobs_of(sweep: Path) -> Iterator[tuple[list[str], Job | None]]:
    """Yield the overrides of every job of a sweep, and the job itself if it has started.

    An unsuccessful job is replaced by a complete job with the same configuration, which another sweep has run.
    """
    content, out = json.loads(sweep.read_text()), sweep.parent.parent
    complete: dict[str, Job] | None = None
    for overrides in content["jobs"]:
        job = read_job(out, job_id(content["verb"], overrides))
        if job is not None and job.config and job.current_state() in ("failed", "interrupted", "died"):
            complete = complete_jobs(out, content["verb"]) if complete is None else complete
            job = complete.get(job.config, job)
        yield overrides, job


def _write(path: Path, content: Any) -> None:
    write_atomic(path, (canonical(content, indent=2) + "\n").encode())


def _is_alive(pid: int) -> bool:
    try:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return False  # a child of this process that has ended, and whose exit status was not read yet
    except (ChildProcessError, AttributeError):  # another process; macOS and Windows have no `waitid`
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
