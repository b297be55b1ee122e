"""The files of sweeps, whichever process or machine runs the jobs.

    sweeps/<id>.json        the jobs of a sweep, by their overrides
    sweeps/jobs/<id>.json   the state of each job, with its reason and seconds

Both lie under the `out` of a run.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dd_bench.runtime.files import canonical, content_key, write_atomic

SWEEP = "DD_BENCH_SWEEP"
"""Environment variable with the path of the running sweep's file; processes of its jobs inherit it."""

State = Literal["running", "done", "skipped", "diverged", "failed", "died", "waiting"]


class Job(BaseModel):
    """`sweeps/jobs/<id>.json`.

    Attributes:
        started: seconds since 1970.
        outputs: files and folders that a done job wrote.
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
        """Returns its state, or `died` if its process on this machine no longer exists."""
        if self.state == "running" and self.host == socket.gethostname() and not _is_alive(self.pid):
            return "died"
        return self.state

    def is_complete(self) -> bool:
        """Whether it is done and its outputs exist."""
        return self.state == "done" and all(Path(p).exists() for p in self.outputs)


def job_id(verb: str, overrides: Sequence[str]) -> str:
    """Returns the name of a job: the same for the same overrides in any order."""
    return content_key([verb, sorted(overrides)])


def new_job(verb: str, overrides: Sequence[str], **values: Any) -> Job:
    """Returns a job of this process."""
    return Job(verb=verb, overrides=list(overrides), host=socket.gethostname(), pid=os.getpid(), **values)


def save_job(out: Path, job: Job) -> None:
    """Writes `sweeps/jobs/<id>.json`."""
    _write(out / "sweeps" / "jobs" / f"{job_id(job.verb, job.overrides)}.json", job.model_dump(mode="json"))


def read_job(out: Path, ident: str) -> Job | None:
    """Returns a job; None if it never started, or its file is incomplete."""
    try:
        return Job.model_validate_json((out / "sweeps" / "jobs" / f"{ident}.json").read_bytes())
    except (OSError, ValidationError):
        return None


def complete_jobs(out: Path, verb: str) -> dict[str, Job]:
    """Returns the jobs that are done and whose outputs exist, by the digest of their configuration."""
    jobs = [read_job(out, path.stem) for path in (out / "sweeps" / "jobs").glob("*.json")]
    return {job.config: job for job in jobs if job is not None and job.verb == verb and job.is_complete()}


def save_sweep(out: Path, verb: str, overrides: list[str], jobs: list[list[str]]) -> Path:
    """Writes `sweeps/<id>.json` and returns its path."""
    path = out / "sweeps" / f"{content_key([job_id(verb, words) for words in jobs])}.json"
    _write(path, {"verb": verb, "overrides": overrides, "jobs": jobs})
    return path


def jobs_of(sweep: Path) -> Iterator[tuple[list[str], Job | None]]:
    """Yields the overrides of every job of a sweep, and its file's content if it started."""
    table = json.loads(sweep.read_text())
    for words in table["jobs"]:
        yield words, read_job(sweep.parent.parent, job_id(table["verb"], words))


def _write(path: Path, content: Any) -> None:
    write_atomic(path, (canonical(content, indent=2) + "\n").encode())


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
