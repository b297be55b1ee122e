"""Write the state of every job of a sweep (see `jobs`), and select the jobs to launch.

A restarted sweep repeats no work, because sets and records are found by their content key. With `--only-missing`, jobs
with the same composed configuration as a complete job are not launched.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dd_bench import NUMBERS_VERSION
from dd_bench.cli import SWEEP, hydra_patch
from dd_bench.cli.jobs import State, complete_jobs, new_job, save_job, save_sweep
from dd_bench.cli.progress import headline
from dd_bench.cli.sweep_overrides import expand, loader_for
from dd_bench.pipeline.choices import ignore_missing_init
from dd_bench.pipeline.config_errors import COMPOSITION_ERRORS, check_hydra_keys, check_keys, explain
from dd_bench.records.record import Record
from dd_bench.runtime.files import content_key
from dd_bench.runtime.progress import Progress

_SWEEP_CONFIG: DictConfig | None = (
    None  # of the sweep that this process runs; its jobs inherit the `hydra` overrides
)

_SWEEP_ERROR: OSError | None = None  # raised when the file of the sweep was written

_NUM_SELECTED = 0  # jobs that the sweep of this process launches

_BAR: Progress | None = None  # of the jobs that run in this process

_LOCATIONS = ("hydra", "out", "cache", "tuning", "hyperparameters", "log_images_every")
"""Configuration keys that do not affect the results of a job."""


ignore_missing_init()  # at import, because a launcher composes jobs in other processes, which import this module


class SweepCallback(Callback):
    """Hydra callbacks that write the files of a sweep. The callbacks of a job are called in the process of the job."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the file of the sweep."""
        global _SWEEP_CONFIG, _SWEEP_ERROR
        _SWEEP_CONFIG, _SWEEP_ERROR = config, None
        overrides = list(config.hydra.overrides.task)
        jobs = expand(overrides, config.hydra.searchpath or ())
        overrides += [
            o for o in config.hydra.overrides.hydra if not o.startswith(("hydra.mode", "hydra.job.name"))
        ]
        try:
            path = save_sweep(Path(str(config.out)), str(config.hydra.job.name), overrides, jobs)
        except OSError as error:  # Hydra would only log it; `select_jobs` raises it
            _SWEEP_ERROR = error
            return
        os.environ[SWEEP] = str(path)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the state `running` of a job."""
        if config.hydra.mode == RunMode.MULTIRUN:
            self.started = time.time()
            self._save(config, state="running")
            _start_bar()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Write the final state of a job, and print the progress of its sweep."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        state, reason, outputs = _outcome(job_return, Path(str(config.out)))
        seconds = round(time.time() - self.started, 3)
        self._save(config, state=state, reason=reason, seconds=seconds, outputs=outputs)
        if sweep := os.environ.get(SWEEP):
            sys.stderr.write(f"{headline(Path(sweep))}\n")
        if _BAR is not None:
            _BAR.advance_to(int(config.hydra.job.num) + 1, {})

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Remove the bar."""
        global _BAR
        if _BAR is not None:
            _BAR.__exit__(None, None, None)
            _BAR = None

    def _save(self, config: DictConfig, **values: Any) -> None:
        command, overrides = str(config.hydra.job.name), list(config.hydra.overrides.task)
        job = new_job(command, overrides, started=self.started, config=config_digest(config), **values)
        save_job(Path(str(config.out)), job)


def _start_bar() -> None:
    """Show the number of finished jobs, if this process runs the jobs. A launcher may run them in other processes."""
    global _BAR
    if _NUM_SELECTED > 1 and _BAR is None:
        _BAR = Progress("jobs", _NUM_SELECTED, lines=False).__enter__()


def config_digest(config: DictConfig) -> str:
    """Return the digest of a job: `NUMBERS_VERSION`, its configuration, and the kind of its device and its precision.

    The keys in `_LOCATIONS` are omitted, and `base` if it is null, so that digests of older jobs stay valid. `auto` is
    resolved on this machine, so a job that a CPU has finished is missing on a machine with a GPU, as its record is.
    """
    keys = [str(k) for k in config if k not in _LOCATIONS and not (k == "base" and config[k] is None)]
    values: Any = OmegaConf.to_container(OmegaConf.masked_copy(config, keys), resolve=True)
    return content_key([NUMBERS_VERSION, values, _computed_by(values.get("runtime") or {})])


def _computed_by(runtime: Mapping[str, Any]) -> list[str]:
    """Return the kind of the device and the precision of a job, or nothing if they are not valid."""
    from dd_bench.runtime.precision import choose_precision  # imports torch
    from dd_bench.runtime.runtime import choose_device

    try:
        device = choose_device(runtime["device"])
        return [device.type, choose_precision(runtime["precision"], device)]
    except (ValueError, KeyError, TypeError):  # the job ends with the message
        return []


def select_jobs(command: str, only_missing: bool) -> None:
    """Make later sweeps of this process launch only jobs with a valid configuration.

    With `only_missing`, complete jobs are not launched either. Jobs without a valid configuration are saved as failed
    and printed before the first job starts.
    """

    def select(overrides: list[str], jobs: list[list[str]]) -> list[list[str]]:
        global _NUM_SELECTED
        if _SWEEP_ERROR is not None:
            raise _SWEEP_ERROR
        assert _SWEEP_CONFIG is not None
        try:
            check_hydra_keys(_SWEEP_CONFIG.hydra)
        except ValueError as error:
            raise CompactHydraException(str(error)) from error
        if not jobs:
            raise CompactHydraException(
                f"the sweep has no job, because a glob(...) in {' '.join(overrides)} matches no file. "
                "To list the files: dd-bench list"
            )
        out = Path(os.environ[SWEEP]).parent.parent  # set by on_multirun_start
        complete = complete_jobs(out, command) if only_missing else {}
        selected, skipped, invalid = [], 0, []
        for job in jobs:
            try:
                config = _compose(job)
            except (*COMPOSITION_ERRORS, ValueError, ImportError, OSError) as error:
                reason = (
                    explain(error, job, _compose) if isinstance(error, COMPOSITION_ERRORS) else str(error)
                )
                invalid.append(f"  {' '.join(job)}\n      {reason}\n")
                _save_failed(out, command, job, reason)
                continue
            if found := complete.get(config_digest(config)) if complete else None:
                # different overrides can compose the same configuration
                save_job(out, found.model_copy(update={"overrides": job}))
                skipped += 1
            else:
                selected.append(job)
        if invalid:
            sys.stderr.write(
                f"{len(invalid)} of {len(jobs)} jobs are not launched, because their configuration is not valid:\n"
                + "".join(invalid)
            )
        if only_missing:
            sys.stderr.write(f"{skipped} of {len(jobs)} jobs are finished, {len(selected)} to run\n")
        _NUM_SELECTED = len(selected)
        return selected

    def loader() -> ConfigLoader | None:
        assert _SWEEP_CONFIG is not None
        return loader_for(_SWEEP_CONFIG.hydra.searchpath or ())

    hydra_patch.select_jobs(select, loader)


def _compose(overrides: Sequence[str]) -> DictConfig:
    """Return the configuration of a job, composed as the launcher does it.

    Raises:
        ValueError: a key is not a configuration key.
        HydraException, OmegaConfBaseException: the configuration does not compose.
    """
    assert _SWEEP_CONFIG is not None
    config = GlobalHydra.instance().config_loader().load_sweep_config(_SWEEP_CONFIG, list(overrides))
    if any(override.startswith(("+", "~")) for override in overrides):  # Hydra accepts any such key
        from dd_bench.pipeline.compose import check_groups  # imports torch

        check_groups(config, config.hydra.runtime.choices)
    else:
        check_keys(config)
    check_hydra_keys(config.hydra)
    return config


def _save_failed(out: Path, command: str, overrides: list[str], reason: str) -> None:
    save_job(
        out, new_job(command, overrides, state="failed", reason=reason, started=time.time(), seconds=0.0)
    )


def _outcome(job: JobReturn, out: Path) -> tuple[State, str | None, list[str]]:
    """Return the state of a job that ended, the reason if it has no result, and its output files."""
    result = hydra_patch.task_result(job)
    if job.status != JobStatus.COMPLETED:
        reason = f"{type(result).__name__}: {result}".removeprefix("CompactHydraException: ")
        return "failed", reason, []
    if isinstance(result, Record):
        if result.status != "done":
            return result.status, result.reason, []
        return "done", None, [str((out / "records" / f"{result.key}.json").resolve())]
    return "done", None, [str(p.resolve()) for p in result] if isinstance(result, list) else []
