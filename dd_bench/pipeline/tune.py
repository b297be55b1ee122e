"""`dd-bench tune`: search hyper-parameters on validation data, which are cut from the training split.

A trial is an ordinary run on a dataset without its test split, see `RealSet.validation_as_test`. So it has content
keys, it continues from its own checkpoints, and equal trials of several studies share their sets and records.

Files written under `out`:

- `tune/trials/`: sets, records and checkpoints of the trials of all studies.
- `tune/<name>/`: the study, see `study`, and its result, tuning.json.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

try:
    import optuna
except ModuleNotFoundError as error:
    raise ImportError(
        "a search requires Optuna, which is not installed. Use: pip install 'dd-bench[tune]'"
    ) from error
from omegaconf import OmegaConf

from dd_bench import NUMBERS_VERSION
from dd_bench.data.dataset import RealSet
from dd_bench.pipeline import run as verbs
from dd_bench.pipeline.compose import USER_ERRORS, RunConfig, check_groups, load_dataset
from dd_bench.pipeline.search_space import SearchSpace, search_space
from dd_bench.pipeline.study import Study
from dd_bench.records.overrides import to_override
from dd_bench.records.tuning import Params, Trial, Tuning, Value, override_words
from dd_bench.runtime import interruption
from dd_bench.runtime.files import canonical, content_key
from dd_bench.runtime.terminal import sanitize

_log = logging.getLogger(__name__)
VAL_FRACTION = 0.1
"""`dataset.val_fraction` of trials if no override sets it."""
TRIALS = 20
"""Default of the maximum number of trials."""
LOCAL = ("out", "cache", "logger", "runtime", "hydra", "log_every", "log_images_every", "checkpoint_seconds")
"""Groups of overrides that do not affect a trial. They are not part of the study and of its result."""
_OUT_NAME = "trials"


class NoResultError(ValueError):
    """No trial of a study has a score."""


@dataclass
class Search:
    """A search that was checked and can start.

    Attributes:
        space: the search space, with the overrides that all trials share.
        first: the composed configuration of the first values.
        val_fraction: `dataset.val_fraction` of the trials; None: the dataset has its own validation split.
        name: name of the study.
    """

    space: SearchSpace
    first: RunConfig
    val_fraction: float | None
    name: str
    _real: dict[str, tuple[str, RealSet]] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        """Folder of all studies."""
        return Path(str(self.first.cfg.out)) / "tune"

    @property
    def folder(self) -> Path:
        """Folder of the study."""
        return self.out / self.name

    @property
    def file(self) -> Path:
        """The result of the study."""
        return self.folder / "tuning.json"

    @property
    def final(self) -> list[str]:
        """The fixed overrides without that of the validation split, which the final run trains on."""
        return [w for w in self.space.fixed if not w.lstrip("+~").startswith("dataset.val_fraction=")]

    @property
    def shared(self) -> list[str]:
        """The overrides that all trials share and that affect their scores, without folders of this machine."""
        words = [w for w in self.space.fixed if re.split(r"[=./@]", w.lstrip("+~"))[0] not in LOCAL]
        return [
            w for w in words if not w.startswith(("dataset.root=", "dataset.download=", "dataset.stream="))
        ]

    def config(self, params: dict[str, Value]) -> RunConfig:
        """Return the configuration of a trial, with a dataset that has no test split."""
        places = {"out": str(self.out / _OUT_NAME), "cache": str(self.first.cfg.cache)}
        words = [
            *self.space.fixed,
            *override_words(params),
            *(f"{k}={to_override(v, k)}" for k, v in places.items()),
        ]
        config = RunConfig.of(words, in_sweep=True)
        return replace(config, real=self._validation_set(config)[1])

    @property
    def real_digest(self) -> str:
        """Digest of the whole dataset, as in records that are scored on test data."""
        return self._validation_set(self.first)[0]

    def _validation_set(self, config: RunConfig) -> tuple[str, RealSet]:
        """Return the digest of the whole dataset, and the dataset of a trial. The last dataset is kept in memory."""
        key = canonical(OmegaConf.to_container(config.cfg.dataset, resolve=True))
        if key not in self._real:
            whole = load_dataset(config)
            real = replace(whole.validation_as_test(), overrides=(f"dataset={config.choices['dataset']}",))
            self._real = {key: (whole.digest, real)}
        return self._real[key]


def plan(overrides: Sequence[str], name: str | None = None) -> Search:
    """Check a search before its first trial.

    Args:
        overrides: overrides of a run. Those with several values are the search space.
        name: name of the study; None: the method, the dataset, the IPC and a hash of the search.

    Raises:
        ValueError, FileNotFoundError: an override is wrong, there is nothing to search, the trials would not be
            independent of test or validation data, or the data are missing.
    """
    space = search_space(overrides)
    examples = space.examples()
    first = RunConfig.of([*space.fixed, *override_words(examples[0])])
    space, val_fraction = _with_validation(space, first)
    first, *others = (RunConfig.of([*space.fixed, *override_words(params)]) for params in examples)
    for config in (first, *others):
        check_groups(config.cfg, config.choices)
        _check_independent(config)
    search = Search(space, first, val_fraction, "")
    method, dataset = (first.choices[group] for group in ("method", "dataset"))
    known = content_key([NUMBERS_VERSION, sorted(search.shared), space.texts])[:8]
    search.name = name or f"{method}-{dataset}-ipc{first.cfg.ipc}-{known}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", search.name) or search.name == _OUT_NAME:
        raise ValueError(
            f"the name of a study must contain only letters, digits, _ . + and -, and not be {_OUT_NAME!r}, got "
            f"{search.name!r}. Example: --name dm-lr"
        )
    search.config(examples[0])  # loads the data
    return search


def _with_validation(space: SearchSpace, first: RunConfig) -> tuple[SearchSpace, float | None]:
    """Return the space with an override of `dataset.val_fraction`, and its value."""
    if "val_fraction" not in first.cfg.dataset:
        return space, None
    value = first.cfg.dataset.val_fraction
    given = any(word.lstrip("+~").startswith("dataset.val_fraction=") for word in space.fixed)
    if not given and value == 0:
        value = VAL_FRACTION
        space = replace(space, fixed=(*space.fixed, f"dataset.val_fraction={value}"))
    if type(value) not in (int, float) or not 0 < value < 1:
        raise ValueError(
            f"dataset.val_fraction must be in (0, 1) for a search, got {value}, because trials are scored on these "
            f"images. Example: dataset.val_fraction={VAL_FRACTION}"
        )
    return space, float(value)


def _check_independent(config: RunConfig) -> None:
    """Check that a trial uses no network or label from another run, and reports a score of the last step.

    Raises:
        ValueError: it does not.
    """
    cfg = config.cfg
    if cfg.get("set") is not None or cfg.get("tuning") is not None:
        key = "set" if cfg.get("set") is not None else "tuning"
        raise ValueError(f"{key}={cfg[key]} cannot be used in a search. Remove it")
    if (selection := cfg.protocol.get("selection", "last")) != "last":
        raise ValueError(
            f"protocol {cfg.protocol.name} has selection={selection}, so a trial would report the best epoch on the "
            "validation images. Use a protocol with selection=last, e.g. protocol=dc-300"
        )
    for key in ("protocol.labels.source", "method.experts.source"):
        if (source := OmegaConf.select(cfg, key)) is not None:
            raise ValueError(
                f"{key}={source}: stored labels and experts come from networks that were trained on the validation "
                f"images too. Use {key}=null"
            )


def tune(
    search: Search,
    trials: int = TRIALS,
    on_trial: Callable[[Trial, int, int], None] = lambda trial, finished, total: None,
) -> Tuning:
    """Run the missing trials of a search, and return its result, which is also written to `Search.file`.

    Args:
        search: see `plan`.
        trials: maximum number of trials, including those of earlier processes. If the space has at most so many
            configurations, every configuration is tried.
        on_trial: called with each trial that ends, the number of all trials that have ended, and the maximum number.

    Raises:
        NoResultError: no trial has a score.
        ValueError: `trials` is less than 1, or the folder has a study of another search.
    """
    if trials < 1:
        raise ValueError(f"--trials must be an integer >= 1, got {trials}. Example: --trials 20")
    seed = int(search.first.cfg.seed)
    what = {
        "search space": search.space.texts,
        "list of overrides": sorted(search.shared),
        "digest of the dataset": search.real_digest,
        "version of the numbers": NUMBERS_VERSION,
    }
    study = Study(search.folder, search.space, seed, trials, what)
    if search.val_fraction is not None:
        _log.info("scored on the validation split, dataset.val_fraction=%s", search.val_fraction)
    while True:
        with study.next_trial() as started:
            if started is None:
                break
            verb = "is continued" if started.resumed else "starts"
            _log.info("trial %d %s: %s", started.number, verb, " ".join(override_words(started.params)))
            trial, names = _run(search, started.number, started.params)
            study.tell(trial, names)
            on_trial(trial, len(study.results()), study.total)
    with study.locked():
        tuning = _result(search, study, seed)
        tuning.save(search.file)
    return tuning


def _run(search: Search, number: int, params: Params) -> tuple[Trial, dict[str, Any]]:
    """Run one trial, and return it and the names in its record. An error ends the trial, and not the search."""
    try:
        record = verbs.run(search.config(params))
    except Exception as error:
        if interruption.delivered() is not None:  # the signal came during an import, and caused another error
            raise
        known = isinstance(error, USER_ERRORS)
        _log.error("trial %d has failed: %s", number, error, exc_info=not known)
        reason = sanitize(str(error) if known else f"{type(error).__name__}: {error}")
        return Trial(number=number, params=params, status="failed", reason=reason[:2000]), {}
    if record.split != "validation":
        raise RuntimeError(f"trial {number} was scored on the {record.split} split")
    trial = Trial(number=number, params=params, status=record.status)
    if record.status != "done":
        return trial.model_copy(update={"reason": (record.reason or "")[:2000]}), {}
    summary = record.summary()
    scores = {"value": summary.mean, "std": summary.std, "networks": summary.num_networks}
    names = {key: getattr(record, key) for key in ("method", "dataset", "model", "ipc")}
    names |= {"protocol": record.protocol.name, "metric": record.main_metric}
    return trial.model_copy(update=scores), names


def _result(search: Search, study: Study, seed: int) -> Tuning:
    trials = study.results()
    done = [t for t in trials if t.value is not None]
    if not done:
        lines = [f"  {' '.join(override_words(t.params))}: {t.status}: {t.reason}" for t in trials]
        raise NoResultError("\n".join(["no trial has a score:", *(lines or ["  other processes run them"])]))
    best = max(done, key=lambda t: (t.value or 0.0, -t.number))
    return Tuning(
        **study.names(best.number),
        split="validation",
        val_fraction=search.val_fraction,
        real_digest=search.real_digest,
        space=search.space.texts,
        fixed=[_without_folder(word) for word in search.shared],
        sampler="grid" if study.sampler == "grid" else "tpe",
        seed=seed,
        optuna=optuna.__version__,
        trials=trials,
        chosen=best.number,
    )


def _without_folder(word: str) -> str:
    key, equals, value = word.partition("=")
    path = PurePath(value.strip("'\""))
    return f"{key}{equals}{path.name}" if path.is_absolute() else word
