"""A study of Optuna that several processes can continue, and that is not changed by an interruption.

    study.db            Optuna's storage (SQLite), which optuna-dashboard can show
    study.lock          held while a process selects its next trial
    trials/<n>.lock     held by the process that runs trial n

A process that ends releases its locks. A trial that is running in the storage, and whose lock is free, was interrupted,
and the next process continues it. The seed of the sampler depends on the number of the trial, so a study that was
interrupted selects the same trials as one that was not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from dd_bench.pipeline.search_space import SearchSpace
from dd_bench.records.tuning import Params, Trial
from dd_bench.runtime.cache import locked
from dd_bench.runtime.seeding import seed_for

_log = logging.getLogger(__name__)
_RESULT, _NAMES, _SEARCH = "result", "names", "search"
_STATES = {
    "done": TrialState.COMPLETE,
    "skipped": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
"""Pruned trials count as worse than all others for TPE, which then avoids their values. It ignores failed trials."""
_SECONDS = 60.0  # that SQLite waits for another process


@dataclass(frozen=True)
class Started:
    """A trial that this process runs."""

    number: int
    params: Params
    resumed: bool


class Study:
    """The trials of one search."""

    def __init__(self, folder: Path, space: SearchSpace, seed: int, trials: int, search: dict[str, Any]):
        """Open the study in a folder, or create it.

        Args:
            folder: folder of the study.
            space: the search space.
            seed: seed of the sampler.
            trials: maximum number of trials, including those of earlier processes.
            search: what identifies the search, as JSON data. The study is continued only with equal data.

        Raises:
            ValueError: the folder has a study of another search.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._folder, self._space, self._seed = folder, space, seed
        size = space.size
        self.sampler = "grid" if size is not None and size <= trials else "tpe"
        self.total = size if size is not None and self.sampler == "grid" else trials
        folder.mkdir(parents=True, exist_ok=True)
        with self.locked():
            storage = RDBStorage(
                f"sqlite:///{folder / 'study.db'}", engine_kwargs={"connect_args": {"timeout": _SECONDS}}
            )
            self._study = optuna.create_study(
                storage=storage,
                study_name=folder.name,
                direction="maximize",
                load_if_exists=True,
                sampler=RandomSampler(),  # for `tell` only: GridSampler supports it only inside `optimize`
            )
            if (found := self._study.user_attrs.get(_SEARCH, search)) != search:
                key = next(k for k in search if found.get(k) != search[k])
                raise ValueError(
                    f"{folder} is another study: its {key} is {found.get(key)}, not {search[key]}. Use another name: "
                    f"--name NAME, or remove it: rm -r {folder}"
                )
            self._study.set_user_attr(_SEARCH, search)
            self._failed_here: set[int] = set()
            self._repeat_failed()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the study."""
        with locked(self._folder / "study.lock"):
            yield

    @contextmanager
    def next_trial(self) -> Iterator[Started | None]:
        """Yield a trial that no other process runs, or None if there is none left. Its lock is held in the context."""
        with self.locked():
            started, lock = self._next()
        try:
            yield started
        finally:
            if lock is not None:
                lock.release()

    def _next(self) -> tuple[Started | None, FileLock | None]:
        trials = self._study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state == TrialState.RUNNING and (lock := self._acquire(trial.number)):
                return Started(trial.number, self._suggest(self._trial(trial.number)), True), lock
        used = sum(t.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING) for t in trials)
        if used + len(self._failed_here) >= self.total:
            return None, None
        self._study.sampler = self._sampler(len(trials))
        asked = self._study.ask()
        lock = self._acquire(asked.number)
        assert lock is not None, "no other process can know this trial"
        return Started(asked.number, self._suggest(asked), False), lock

    def _acquire(self, number: int) -> FileLock | None:
        path = self._folder / "trials" / f"{number}.lock"
        path.parent.mkdir(exist_ok=True)
        lock = FileLock(str(path))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    def _suggest(self, trial: optuna.Trial) -> Params:
        """Select the values of a trial. An interrupted trial keeps those that it has."""
        self._study.sampler = self._sampler(trial.number)
        for key, d in self._space.distributions.items():
            if isinstance(d, FloatDistribution):
                trial.suggest_float(key, d.low, d.high, step=d.step, log=d.log)
            elif isinstance(d, IntDistribution):
                trial.suggest_int(key, d.low, d.high, step=d.step, log=d.log)
            elif isinstance(d, CategoricalDistribution):
                trial.suggest_categorical(key, d.choices)
        self._study.sampler = RandomSampler()
        return dict(trial.params)

    def _sampler(self, number: int) -> BaseSampler:
        if self.sampler == "grid":
            return GridSampler(self._space.grid(), seed=self._seed % 2**32)
        return TPESampler(seed=seed_for(self._seed, "tune", number) % 2**32)

    def _repeat_failed(self) -> None:
        """Queue the values of failed trials again, unless a later trial has them."""
        trials = self._study.get_trials(deepcopy=False)
        for trial in trials:
            later = [t.system_attrs.get("fixed_params", t.params) for t in trials[trial.number + 1 :]]
            if trial.state == TrialState.FAIL and trial.params not in later:
                _log.info("trial %d has failed, and is repeated", trial.number)
                self._study.enqueue_trial(trial.params)

    def tell(self, trial: Trial, names: dict[str, Any]) -> None:
        """Store the result of a trial, and names of its method, protocol etc. as JSON data, see `names`."""
        with self.locked():
            result = trial.model_dump(mode="json", exclude={"params", "number"})
            stored = self._trial(trial.number)
            stored.set_user_attr(_RESULT, result)
            stored.set_user_attr(_NAMES, names)
            self._study.tell(trial.number, trial.value, state=_STATES[trial.status])
            if trial.status == "failed":
                self._failed_here.add(trial.number)

    def _trial(self, number: int) -> optuna.Trial:
        (stored,) = (t for t in self._study.get_trials(deepcopy=False) if t.number == number)
        return optuna.Trial(self._study, stored._trial_id)

    def results(self) -> list[Trial]:
        """Return the finished trials, without failed trials that were repeated."""
        trials = [t for t in self._study.get_trials(deepcopy=False) if t.state.is_finished()]
        return [
            Trial(number=t.number, params=dict(t.params), **t.user_attrs[_RESULT])
            for t in trials
            if t.state != TrialState.FAIL
            or not any(other.params == t.params for other in trials if other.number > t.number)
        ]

    def names(self, number: int) -> dict[str, Any]:
        """Return the names that were stored with a trial."""
        names: dict[str, Any] = self._trial(number).user_attrs[_NAMES]
        return names
