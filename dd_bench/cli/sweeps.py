"""What becomes of every job of a sweep, on whatever process or machine it runs: `out/sweeps`.

    sweeps/<id>.json        the jobs of a sweep, by their overrides
    sweeps/jobs/<id>.json   of each job: running, done, skipped or failed, with its reason and seconds

Hydra tells of the jobs by its callbacks. A sweep that is started again does what is missing, since sets and records are
found by their content; `--only-missing` does not even launch those that were told the same and left their record.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, Literal

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException, HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, ValidationError

from dd_bench import NUMBERS_VERSION
from dd_bench.cli.main import SWEEP
from dd_bench.records.record import Record
from dd_bench.runtime.files import canonical, content_key, write_atomic

State = Literal["running", "done", "skipped", "diverged", "failed", "died", "waiting"]


class Job(BaseModel):
    """`sweeps/jobs/<id>.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    verb: str
    overrides: list[str]
    state: State
    reason: str | None = None
    began: float  # seconds since 1970
    seconds: float | None = None
    host: str
    pid: int
    left: list[str] = []  # files and folders that a done job left behind
    config: str = ""  # digest of the composed configuration and of the version of the numbers

    def now(self) -> State:
        """Returns its state as far as can be told from here: a process of this machine that is gone has died."""
        if self.state == "running" and self.host == socket.gethostname() and not _alive(self.pid):
            return "died"
        return self.state

    def finished(self) -> bool:
        """Whether it was done, and what it left is there."""
        return self.state == "done" and all(Path(p).exists() for p in self.left)


class SweepCallback(Callback):
    """Hydra's callbacks, which write the files; they are called in the process that runs a job."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Writes down the jobs of the sweep."""
        verb, out = str(config.hydra.job.name), Path(str(config.out))
        overrides = list(config.hydra.overrides.task)
        jobs = expand(overrides)
        overrides += [
            w for w in config.hydra.overrides.hydra if not w.startswith(("hydra.mode", "hydra.job.name"))
        ]
        table = {"verb": verb, "overrides": overrides, "jobs": jobs}
        path = out / "sweeps" / f"{content_key([job_id(verb, words) for words in jobs])}.json"
        write_atomic(path, (canonical(table, indent=2) + "\n").encode())
        os.environ[SWEEP] = str(path)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Says that a job runs."""
        if config.hydra.mode == RunMode.MULTIRUN:
            self.began = time.time()
            self._write(config, state="running")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Says what became of a job, and how far its sweep is."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        state, reason, left = _outcome(job_return, Path(str(config.out)))
        seconds = round(time.time() - self.began, 3)
        self._write(config, state=state, reason=reason, seconds=seconds, left=left)
        if sweep := os.environ.get(SWEEP):
            sys.stderr.write(f"{headline(Path(sweep))}\n")

    def _write(self, config: DictConfig, **values: Any) -> None:
        verb, words = str(config.hydra.job.name), list(config.hydra.overrides.task)
        job = _job(verb, words, began=self.began, config=identity(config), **values)
        _save(Path(str(config.out)), job)


def identity(config: DictConfig) -> str:
    """Returns the digest of what a job was told and of the version of the numbers, not of the files that it reads."""
    elsewhere = ("hydra", "out", "cache")  # where things lie
    told = OmegaConf.to_container(
        OmegaConf.masked_copy(config, [str(k) for k in config if k not in elsewhere]), resolve=True
    )
    return content_key([NUMBERS_VERSION, told])


def job_id(verb: str, overrides: Sequence[str]) -> str:
    """Returns the name of a job: the same for the same overrides in any order."""
    return content_key([verb, sorted(overrides)])


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Returns the overrides of each job that Hydra's basic sweeper makes of those of a sweep."""
    known = GlobalHydra.instance()  # whose files glob(...) asks for
    loader = known.config_loader() if known.is_initialized() else None
    parsed = OverridesParser.create(loader).parse_overrides(list(overrides))
    (jobs,) = _all_jobs(parsed, None)
    return [[word for word in job if not word.startswith("hydra")] for job in jobs]


def for_the_jobs(words: Sequence[str]) -> list[str]:
    """Returns the arguments of a sweep with the values of what is swept made choices of one.

    Hydra gives a plain value to the defaults too, before there is any job: `method=mtt,ftd method.syn_steps=30` would
    end at a default method without that key. What Hydra reads otherwise inside of a choice (null, quotes, calls) stays.
    """
    told = [w for w in words if "=" in w and not w.startswith("-")]
    try:
        parsed = dict(zip(told, OverridesParser.create().parse_overrides(told), strict=True))
    except HydraException:
        return list(words)  # Hydra says what is wrong with them
    swept = {o.key_or_group for o in parsed.values() if o.is_sweep_override()}

    def chosen(word: str) -> str:
        group, dot, _ = (o := parsed[word]).key_or_group.partition(".")
        key, _, value = word.partition("=")
        if not dot or o.is_sweep_override() or o.is_hydra_override() or not {group, "experiment"} & swept:
            return word
        return f"{key}=choice({value})" if _ONE.fullmatch(value) else word

    return [chosen(w) if w in parsed else w for w in words]


def as_typed(word: str) -> str:
    """Returns an argument as it was before `for_the_jobs`."""
    key, _, value = word.partition("=choice(")
    alone = value.endswith(")") and "," not in re.sub(r"\[.*\]|\{.*\}", "", value)
    return f"{key}={value[:-1]}" if alone else word


_ONE = re.compile(r"(?!.*\bnull\b)[\w.+\-/:\[\]{}, ]+", re.IGNORECASE)
_all_jobs = BasicSweeper.split_arguments


def choose_jobs(verb: str, only_missing: bool) -> None:
    """From now on a sweep launches the jobs that compose, and of these, if so told, those that are not finished.

    What does not compose is written down as failed, with Hydra's reason. Hydra takes sweepers from a package of its own
    alone, so that its basic one is told, and not replaced.
    """

    def chosen(overrides: list[Any], size: int | None) -> list[list[list[str]]]:
        (jobs,) = _all_jobs(overrides, None)
        if not jobs:
            raise CompactHydraException(
                f"error: there is no job in {' '.join(o.input_line for o in overrides)}: is there a file that each "
                "glob(...) matches?"
            )
        out = Path(os.environ[SWEEP]).parent.parent  # which the ledger has written by now
        known = _finished(out, verb) if only_missing else {}
        loader, left, finished = GlobalHydra.instance().config_loader(), [], 0
        for job in jobs:
            words = [w for w in job if not w.startswith("hydra")]
            try:
                config = loader.load_configuration("config", words, RunMode.RUN)
            except (HydraException, OmegaConfBaseException) as error:
                reason = " ".join(str(error).partition("Config search path:")[0].split())
                _save(out, _job(verb, words, state="failed", reason=reason, began=time.time(), seconds=0.0))
                continue
            if done := known.get(identity(config)):
                # it may have been told in other words
                _save(out, done.model_copy(update={"overrides": words}))
                finished += 1
            else:
                left.append(job)
        if only_missing:
            sys.stderr.write(f"{finished} of {len(jobs)} jobs are finished; {len(left)} to do\n")
        return [left[i : i + (size or len(left))] for i in range(0, len(left), size or len(left) or 1)]

    Plugins.instance()  # which loads the sweeper's module anew, once
    import_module(BasicSweeper.__module__).BasicSweeper.split_arguments = staticmethod(chosen)


def _job(verb: str, words: Sequence[str], **values: Any) -> Job:
    return Job(verb=verb, overrides=list(words), host=socket.gethostname(), pid=os.getpid(), **values)


def _save(out: Path, job: Job) -> None:
    path = out / "sweeps" / "jobs" / f"{job_id(job.verb, job.overrides)}.json"
    write_atomic(path, (canonical(job.model_dump(mode="json"), indent=2) + "\n").encode())


def _finished(out: Path, verb: str) -> dict[str, Job]:
    """Returns the jobs that left what they made, by the digest of their configuration."""
    jobs = [read_job(out, path.stem) for path in (out / "sweeps" / "jobs").glob("*.json")]
    return {job.config: job for job in jobs if job is not None and job.verb == verb and job.finished()}


def read_job(out: Path, ident: str) -> Job | None:
    """Returns what is known of a job; None if it never began, or its file is not whole."""
    try:
        return Job.model_validate_json((out / "sweeps" / "jobs" / f"{ident}.json").read_bytes())
    except (OSError, ValidationError):
        return None


def jobs_of(sweep: Path) -> Iterator[tuple[list[str], Job | None]]:
    """Yields the overrides of every job of a sweep, and what is known of it."""
    table = json.loads(sweep.read_text())
    for words in table["jobs"]:
        yield words, read_job(sweep.parent.parent, job_id(table["verb"], words))


def headline(sweep: Path) -> str:
    """Returns e.g. `sweep: 3 of 12 done, 2 running, 1 failed, about 14 min to go`."""
    jobs = [job for _, job in jobs_of(sweep)]
    states = Counter(job.now() if job else "waiting" for job in jobs)
    over = sum(states[s] for s in ("done", "skipped", "diverged", "failed"))
    text = [f"{states[s]} {s}" for s in ("running", "skipped", "diverged", "failed", "died") if states[s]]
    took = [job.seconds for job in jobs if job and job.seconds and job.state == "done"]
    if took and over < len(jobs):
        # the median: the first job makes the teachers of all, and others wait for it
        rest = median(took) * (len(jobs) - over) / max(1, states["running"])
        text.append(f"about {max(1, round(rest / 60))} min to go")
    return ", ".join([f"sweep: {states['done']} of {len(jobs)} done", *text])


def report(sweep: Path) -> str:
    """Returns the headline and what failed, each with its reason."""
    lines = [headline(sweep)]
    for words, job in jobs_of(sweep):
        if (
            job and job.now() == "running" and job.host != socket.gethostname()
        ):  # none can tell from here if it lives
            hours = (time.time() - job.began) / 3600
            lines.append(f"  running on {job.host} for {hours:.1f} h: {' '.join(words)}")
        if job and (state := job.now()) in ("failed", "died", "diverged", "skipped"):
            lines.append(f"  {state}: {' '.join(words)}\n      {job.reason or 'its process is gone'}")
    return "\n".join(lines)


def broken(sweep: Path) -> bool:
    """Whether a job of a sweep failed, or died."""
    return any(job is not None and job.now() in ("failed", "died") for _, job in jobs_of(sweep))


def progress_verb(arguments: Sequence[str]) -> int:
    """`dd-bench progress [OUT]`: how far the sweeps of a folder are, and what failed; 1 if something did."""
    parser = argparse.ArgumentParser("dd-bench progress", description=progress_verb.__doc__)
    parser.add_argument(
        "out", nargs="?", type=Path, default=Path("runs"), help="`out` of the sweeps (default: runs)"
    )
    out = parser.parse_args(arguments).out
    sweeps = sorted((out / "sweeps").glob("*.json"), key=lambda p: p.stat().st_mtime)
    if not sweeps:
        sys.stderr.write(
            f"error: {out} has no sweep. Start one with: dd-bench run -m method=random,dm ipc=1,10\n"
        )
        return 1
    failed = False
    for sweep in sweeps:
        try:
            table = json.loads(sweep.read_text())
            told = f"dd-bench {table['verb']} -m {shlex.join(map(as_typed, table['overrides']))}\n{report(sweep)}\n"
        except (ValueError, TypeError, KeyError) as error:
            sys.stderr.write(f"left out: {sweep} is not of a sweep: {error!r}\n")
            continue
        sys.stdout.write(told)
        failed |= broken(sweep)
    return int(failed)


def _outcome(ended: JobReturn, out: Path) -> tuple[State, str | None, list[str]]:
    """Returns the state, the reason and what was left behind."""
    if ended.status != JobStatus.COMPLETED:
        error = ended._return_value
        return "failed", f"{type(error).__name__}: {error}".removeprefix("CompactHydraException: error: "), []
    value = ended._return_value
    if isinstance(value, Record):
        if value.status != "done":
            return value.status, value.reason, []
        return "done", None, [str((out / "records" / f"{value.key}.json").resolve())]
    return "done", None, [str(p.resolve()) for p in value] if isinstance(value, list) else []


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
