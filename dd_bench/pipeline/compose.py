"""Build the method, dataset, network and other parts of a run from its composed configuration.

All later stages of the run read plain data, not a DictConfig.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hydra import compose as compose_config
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from dd_bench.data.class_subset import KEY as CLASSES
from dd_bench.data.class_subset import ClassSubset
from dd_bench.data.dataset import RealSet
from dd_bench.data.shifts import Shifts
from dd_bench.models.architecture import Architecture
from dd_bench.models.module_adapter import network_constructor
from dd_bench.pipeline import provenance
from dd_bench.pipeline.arguments import check_nodes, missing_arguments
from dd_bench.pipeline.base_set import load_base
from dd_bench.pipeline.choices import check_choices, check_searchpath, ignore_missing_init
from dd_bench.pipeline.config_errors import COMPOSITION_ERRORS, check_hydra_keys, check_keys, explain
from dd_bench.pipeline.experiment import Experiment
from dd_bench.pipeline.missing_keys import explain_missing
from dd_bench.pipeline.tuned_overrides import with_tuned_values
from dd_bench.records.config_diff import CHOICE, shipped_config, shipped_target
from dd_bench.records.hyperparameters import KEY, stated
from dd_bench.records.identity import identify, plugin_source
from dd_bench.records.tuning import load_tuning
from dd_bench.runtime.allocator import keep_freed_memory
from dd_bench.runtime.checkpoint import CheckpointError
from dd_bench.runtime.files import canonical
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.runtime.runtime import RuntimeConfig, resolve
from dd_bench.runtime.suggestions import MissingKeyError
from dd_bench.synthetic.precision import PRECISION_KEYS
from dd_bench.teachers.teacher_spec import TeacherConfig, TeacherSpec
from dd_bench.training.label_recipe import check_used
from dd_bench.training.protocol import Protocol
from dd_bench.training.recipe import parse

_log = logging.getLogger(__name__)
USER_ERRORS = (ValueError, OSError, ImportError, Diverged, CheckpointError, OmegaConfBaseException)
"""Errors caused by user input. The command prints them without a traceback; all other errors are bugs."""


@dataclass(frozen=True)
class RunConfig:
    """A composed configuration, and the Python objects that replace parts of it.

    Attributes:
        cfg: the configuration of all groups, without the node `hydra`.
        choices: name of the selected file of each group, as Hydra records it.
        in_sweep: whether the run is a job of a sweep. A sweep continues after a skipped or diverged job.
        real: replaces the dataset of `cfg`.
        network: replaces the model of `cfg`: a class, a function, or a `functools.partial` of one.
    """

    cfg: DictConfig
    choices: Mapping[str, str | None]
    in_sweep: bool = False
    real: RealSet | None = None
    network: Callable[..., torch.nn.Module] | None = None

    @classmethod
    def of(cls, overrides: Sequence[str], **objects: Any) -> RunConfig:
        """Compose `overrides`, as `dd-bench run OVERRIDES` does. `objects` are the other attributes, such as `real`.

        Raises:
            ValueError: an override is wrong.
        """
        check_searchpath(overrides)
        check_choices(overrides)
        overrides = with_tuned_values(overrides)
        state = GlobalHydra.instance()
        application, state.hydra = state.hydra, None  # the caller may be a Hydra application
        try:
            with warnings.catch_warnings(), initialize_config_module("dd_bench.conf", version_base="1.3"):
                ignore_missing_init()
                cfg = compose_config("config", list(overrides), return_hydra_config=True)
        except COMPOSITION_ERRORS as error:
            if "multirun" in str(error):
                raise ValueError(f"{' '.join(overrides)}: {error}. Make one call for each value") from error

            def again(others: list[str]) -> DictConfig:
                with initialize_config_module("dd_bench.conf", version_base="1.3"):
                    return compose_config("config", others)

            raise ValueError(f"{' '.join(overrides)}: {explain(error, overrides, again)}") from error
        finally:
            GlobalHydra.instance().hydra = application
        check_hydra_keys(cfg.hydra)
        choices = dict(cfg.hydra.runtime.choices)
        with open_dict(cfg):
            del cfg["hydra"]
        return cls(cfg, choices, **objects)


def compose(run: RunConfig) -> Experiment:
    """Build all parts of an experiment (method, dataset, network, ...) from its configuration.

    Raises:
        ValueError, FileNotFoundError: a value is wrong, or the data are missing. The message gives the correction.
    """
    try:
        return _compose(run)
    except MissingKeyError as error:
        raise ValueError(explain_missing(error, run.choices)) from error


def check_groups(cfg: DictConfig, choices: Mapping[str, str | None]) -> None:
    """Check all keys and values that can be checked without data, as `compose` does.

    Raises:
        ValueError: a key is unknown or missing, or a value is wrong. The message gives the correction.
    """
    try:
        check_keys(cfg)
        for schema, group in ((RuntimeConfig, "runtime"), (Protocol, "protocol")):
            found = parse(schema, OmegaConf.to_container(cfg[group], resolve=True), group)  # type: ignore[type-var, arg-type]
            if isinstance(found, Protocol):
                _check_labels(found, choices)
        for group in ("method", "evaluator", "model"):
            _build(cfg, group)
        _dataset_loader(cfg)
        for name in cfg.get("teachers") or {}:
            _teacher_parts(cfg, name)
    except MissingKeyError as error:
        raise ValueError(explain_missing(error, choices)) from error


def _compose(run: RunConfig) -> Experiment:
    cfg, choices = run.cfg, run.choices
    check_keys(cfg)
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    precision = {key: config["method"].pop(key, None) for key in PRECISION_KEYS}
    config["method"] |= {key: value for key, value in precision.items() if value is not None}
    for name, minimum, example in (("ipc", 1, 10), ("num_sets", 1, 3), ("seed", 0, 0), ("log_every", 1, 10)):
        if type(config[name]) is not int or config[name] < minimum:
            raise ValueError(
                f"{name} must be an integer >= {minimum}, got {config[name]!r}. Example: {name}={example}"
            )
    seconds = config["checkpoint_seconds"]
    if type(seconds) not in (int, float) or not seconds >= 0:
        raise ValueError(
            f"checkpoint_seconds must be a number >= 0, got {seconds!r}. Example: checkpoint_seconds=60"
        )
    images_every = config.pop("log_images_every", None)  # not recorded, because it does not affect results
    if images_every is not None and (type(images_every) is not int or images_every < 1):
        raise ValueError(
            f"log_images_every must be an integer >= 1 or null, got {images_every!r}. Example: log_images_every=100"
        )
    try:
        canonical(config)
    except ValueError as error:
        raise ValueError(
            f"every configuration value must be finite, but one is nan or infinite ({error}). "
            "To print the configuration, add: --cfg job"
        ) from error
    keep_freed_memory()
    if "torch._dynamo" in sys.modules:  # its import takes seconds
        torch.compiler.reset()  # the jobs of a sweep share a process, and dynamo caches few versions of a function
    runtime = resolve(parse(RuntimeConfig, config["runtime"], "runtime"))
    for note in runtime.notes:
        _log.warning(note)
    protocol = parse(Protocol, config["protocol"], "protocol")
    _check_labels(protocol, choices)
    method, evaluator, logger = (_build(cfg, group) for group in ("method", "evaluator", "logger"))
    tuning_file = config.pop("tuning", None)
    tuning = None if tuning_file is None else load_tuning(Path(str(tuning_file)))
    identity = identify(config, choices)
    identity[KEY] = stated(identity, str(choices["method"]), choices.get("experiment"))
    loading = provenance.Stages(runtime.device)
    with loading.measure("load"):
        real = run.real.to(runtime.device) if run.real else _load(cfg, runtime.device)
    if run.real and not run.real.overrides:  # the user's own tensors
        identity["dataset"] = {CHOICE: real.name, "digest": real.digest}
    architecture = _architecture(run, real)
    if run.network:
        identity["model"] = {
            CHOICE: architecture.name,
            **plugin_source(architecture.make),
            **architecture.knobs,
        }
    if real.modality != "image":
        runtime = runtime.in_float32()  # graph networks never use autocast; the record states the precision
    return Experiment(
        config=identity,
        method_name=str(choices["method"]),
        evaluator_name=str(choices["evaluator"]),
        runtime=runtime,
        protocol=protocol,
        real=real,
        architecture=architecture,
        method=method,
        evaluator=evaluator,
        logger=logger,
        loading=loading,
        base=None if cfg.get("base") is None else load_base(Path(str(cfg.base)), real),
        teachers=tuple(
            _teacher(cfg, name, spec["model"][CHOICE], real)
            for name, spec in (identity.get("teachers") or {}).items()
        ),
        notes=runtime.notes,
        tuning=tuning,
        log_images_every=images_every,
    )


def _check_labels(protocol: Protocol, choices: Mapping[str, str | None]) -> None:
    """Raise ValueError if a key of the labels has a value that has no effect."""
    if protocol.labels is not None:
        shipped = shipped_config("protocol", str(choices["protocol"])) or {}
        check_used(protocol.labels, shipped.get("labels") or {})


def load_real_set(overrides: Sequence[str]) -> tuple[RealSet, dict[str, Any]]:
    """Load a real dataset on the CPU, and return it and its configuration. No run is needed.

    Raises:
        ValueError, FileNotFoundError: an override is wrong, or the data are missing.
    """
    run = RunConfig.of(overrides)
    values = OmegaConf.to_container(run.cfg.dataset, resolve=True)
    config: dict[str, Any] = identify({"dataset": values}, run.choices)["dataset"]
    return replace(_load(run.cfg, torch.device("cpu")), overrides=tuple(overrides)), config


def load_dataset(run: RunConfig) -> RealSet:
    """Load the dataset of a run on the CPU.

    Raises:
        ValueError, FileNotFoundError: a value is wrong, or the data are missing.
    """
    return _load(run.cfg, torch.device("cpu"))


def _load(cfg: DictConfig, device: torch.device) -> RealSet:
    load, subset, shifts = _dataset_loader(cfg)
    with _user_errors("dataset"):
        return shifts.apply(subset.apply(load(device=device)))


def _dataset_loader(cfg: DictConfig) -> tuple[Callable[..., RealSet], ClassSubset, Shifts]:
    """Return the function that loads the dataset, the classes to select, and the shifts that are added to it."""
    values: Any = OmegaConf.to_container(cfg.dataset, resolve=True)
    shifts = Shifts.take_from(values)
    selects = (
        CLASSES in inspect.signature(get_object(values["_target_"])).parameters
    )  # a loader of class folders
    subset = ClassSubset() if selects else ClassSubset.take_from(values)
    return _build(OmegaConf.create({"dataset": values}), "dataset"), subset, shifts


def _architecture(run: RunConfig, real: RealSet) -> Architecture:
    if run.network is None:
        model, name = _build(run.cfg, "model"), str(run.choices["model"])
    else:
        model = functools.partial(run.network)  # a partial of a partial is flat
        name = getattr(model.func, "__name__", type(model.func).__name__)
        if shipped_target("model", name):  # e.g. torchvision's resnet18
            name = f"{model.func.__module__}.{name}"
    return _bind(model, real, name)


def _bind(model: functools.partial[Any], real: RealSet, name: str) -> Architecture:
    make = network_constructor(model.func)
    return Architecture(make, dict(model.keywords), real.shape, real.num_classes, name)


def _teacher(cfg: DictConfig, name: str, network: str, real: RealSet) -> TeacherSpec:
    model, config = _teacher_parts(cfg, name)
    return TeacherSpec(name, _bind(model, real, network), config)


def _teacher_parts(cfg: DictConfig, name: str) -> tuple[functools.partial[Any], TeacherConfig]:
    """Return the constructor of a teacher's network, and the configuration of its training."""
    values = OmegaConf.to_container(cfg.teachers[name], resolve=True)
    assert isinstance(values, dict)
    check_nodes(values["model"], f"teachers.{name}.model")
    model = instantiate(cfg.teachers[name].model, _convert_="all")
    config = parse(TeacherConfig, {str(k): v for k, v in values.items() if k != "model"}, f"teachers.{name}")
    return model, config


def _build(cfg: DictConfig, group: str) -> Any:
    with _user_errors(group):
        values = OmegaConf.to_container(cfg[group], resolve=True)
        if group == "method":
            values = {k: v for k, v in values.items() if k not in PRECISION_KEYS}  # type: ignore[union-attr]
        check_nodes(values, group)
        return instantiate(values, _convert_="all")


@contextmanager
def _user_errors(group: str) -> Iterator[None]:
    """Re-raise a constructor's error without Hydra's wrapper; add the group to the message of a TypeError."""
    try:
        yield
    except InstantiationException as error:
        cause = error.__cause__
        if keys := missing_arguments(cause):
            raise MissingKeyError([f"{group}.{key}" for key in keys]) from error
        if isinstance(cause, USER_ERRORS):
            raise cause from None
        if isinstance(cause, TypeError):
            raise ValueError(f"configuration group {group!r}: {cause}") from error
        raise
    except TypeError as error:
        raise ValueError(f"configuration group {group!r}: {error}") from error


def set_folder(cfg: DictConfig) -> Path:
    """Return the folder of the synthetic set to evaluate.

    Raises:
        ValueError: the override `set=FOLDER` is missing.
    """
    if cfg.set is None:
        raise ValueError(
            "`set` must be the folder of a synthetic set, got null. "
            "Example: dd-bench evaluate set=FOLDER dataset=digits protocol=quick"
        )
    return Path(str(cfg.set))
