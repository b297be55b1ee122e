"""Sweeps: writes the state of every job (see `jobs`), and selects which jobs are launched.

A sweep that is started again repeats nothing, as sets and records are found by their content. `--only-missing` does
not even launch the jobs whose composed configuration is that of a complete one.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException, HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dd_bench import NUMBERS_VERSION
from dd_bench.cli import hydra_patch
from dd_bench.cli.jobs import SWEEP, State, complete_jobs, new_job, save_job, save_sweep
from dd_bench.cli.progress import headline
from dd_bench.cli.sweep_overrides import expand
from dd_bench.records.record import Record
from dd_bench.runtime.files import content_key

_LOCATIONS = ("hydra", "out", "cache")
"""Keys of the configuration that are not part of what a job computes."""


class SweepCallback(Callback):
    """Hydra's callbacks, which write the files; Hydra calls them in the process that runs a job."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Writes the jobs of the sweep."""
        overrides = list(config.hydra.overrides.task)
        jobs = expand(overrides)
        overrides += [
            w for w in config.hydra.overrides.hydra if not w.startswith(("hydra.mode", "hydra.job.name"))
        ]
        path = save_sweep(Path(str(config.out)), str(config.hydra.job.name), overrides, jobs)
        os.environ[SWEEP] = str(path)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Writes that a job is running."""
        if config.hydra.mode == RunMode.MULTIRUN:
            self.started = time.time()
            self._save(config, state="running")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Writes how a job ended, and prints the progress of its sweep."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        state, reason, outputs = _outcome(job_return, Path(str(config.out)))
        seconds = round(time.time() - self.started, 3)
        self._save(config, state=state, reason=reason, seconds=seconds, outputs=outputs)
        if sweep := os.environ.get(SWEEP):
            sys.stderr.write(f"{headline(Path(sweep))}\n")

    def _save(self, config: DictConfig, **values: Any) -> None:
        verb, words = str(config.hydra.job.name), list(config.hydra.overrides.task)
        job = new_job(verb, words, started=self.started, config=config_digest(config), **values)
        save_job(Path(str(config.out)), job)


def config_digest(config: DictConfig) -> str:
    """Returns the digest of a job's configuration without locations, and of the version of the numbers."""
    keys = [str(k) for k in config if k not in _LOCATIONS]
    return content_key(
        [NUMBERS_VERSION, OmegaConf.to_container(OmegaConf.masked_copy(config, keys), resolve=True)]
    )


def select_jobs(verb: str, only_missing: bool) -> None:
    """Makes later sweeps of this process launch only jobs that compose, and with `only_missing` only incomplete ones.

    A job that does not compose is written as failed, with Hydra's reason.
    """

    def select(overrides: list[str], jobs: list[list[str]]) -> list[list[str]]:
        if not jobs:
            raise CompactHydraException(
                f"error: no job in {' '.join(overrides)}: a glob(...) matches no file. Look at: dd-bench list"
            )
        out = Path(os.environ[SWEEP]).parent.parent  # set by on_multirun_start
        complete = complete_jobs(out, verb) if only_missing else {}
        selected, skipped = [], 0
        for job in jobs:
            words = [w for w in job if not w.startswith("hydra")]
            config = _composed(out, verb, words)
            if config is None:
                continue
            if found := complete.get(config_digest(config)):
                save_job(
                    out, found.model_copy(update={"overrides": words})
                )  # other words may give the same config
                skipped += 1
            else:
                selected.append(job)
        if only_missing:
            sys.stderr.write(f"{skipped} of {len(jobs)} jobs are finished; {len(selected)} to do\n")
        return selected

    hydra_patch.select_jobs(select)


def _composed(out: Path, verb: str, words: list[str]) -> DictConfig | None:
    """Returns the configuration of a job; None, after saving the job as failed, if it does not compose."""
    loader = GlobalHydra.instance().config_loader()
    try:
        return loader.load_configuration("config", words, RunMode.RUN)
    except (HydraException, OmegaConfBaseException) as error:
        reason = " ".join(str(error).partition("Config search path:")[0].split())
        save_job(out, new_job(verb, words, state="failed", reason=reason, started=time.time(), seconds=0.0))
        return None


def _outcome(job: JobReturn, out: Path) -> tuple[State, str | None, list[str]]:
    """Returns the state, the reason and the output files of a job that ended."""
    result = hydra_patch.task_result(job)
    if job.status != JobStatus.COMPLETED:
        reason = f"{type(result).__name__}: {result}".removeprefix("CompactHydraException: error: ")
        return "failed", reason, []
    if isinstance(result, Record):
        if result.status != "done":
            return result.status, result.reason, []
        return "done", None, [str((out / "records" / f"{result.key}.json").resolve())]
    return "done", None, [str(p.resolve()) for p in result] if isinstance(result, list) else []
