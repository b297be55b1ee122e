"""Build the parts of a run from its composed configuration. All later stages read plain data, not a DictConfig."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra import compose as compose_config
from hydra import initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, InstantiationException, OverrideParseException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dd_bench.data.dataset import RealSet
from dd_bench.models.architecture import Architecture
from dd_bench.pipeline.arguments import check_arguments
from dd_bench.pipeline.experiment import Experiment
from dd_bench.records.config_diff import CHOICE
from dd_bench.records.identity import identify
from dd_bench.runtime.allocator import keep_freed_memory
from dd_bench.runtime.checkpoint import CheckpointError
from dd_bench.runtime.files import canonical
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.runtime.runtime import RuntimeConfig, resolve
from dd_bench.teachers.teacher_spec import TeacherConfig, TeacherSpec
from dd_bench.training.protocol import Protocol
from dd_bench.training.recipe import parse

USER_ERRORS = (ValueError, OSError, ImportError, Diverged, CheckpointError, OmegaConfBaseException)
"""Errors caused by user input. The command prints them without a traceback; any other error is a bug and keeps it."""


def compose(cfg: DictConfig) -> Experiment:
    """Build all parts of an experiment from its configuration.

    Raises:
        ValueError, FileNotFoundError: a value is wrong, or the data are missing. The message gives the correction.
    """
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    choices = HydraConfig.get().runtime.choices
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
    try:
        canonical(config)
    except ValueError as error:
        raise ValueError(
            f"a configuration value is nan or infinite ({error}). Add --cfg job to print the configuration"
        ) from error
    keep_freed_memory()
    torch.compiler.reset()  # the jobs of a sweep share a process, and dynamo caches few versions of a function
    runtime = resolve(parse(RuntimeConfig, config["runtime"], "runtime"))
    protocol = parse(Protocol, config["protocol"], "protocol")
    method, evaluator, load, model, logger = (
        _build(cfg, group) for group in ("method", "evaluator", "dataset", "model", "logger")
    )
    identity = identify(config, choices)
    with _user_errors("dataset"):
        real = load(device=runtime.device)
    if real.modality == "graph":
        runtime = runtime.in_float32()  # graph networks never use autocast; the record states the precision
    return Experiment(
        config=identity,
        method_name=choices["method"],
        evaluator_name=choices["evaluator"],
        runtime=runtime,
        protocol=protocol,
        real=real,
        architecture=Architecture(  # `model` is a functools.partial of the class
            model.func, dict(model.keywords), real.shape, real.num_classes, choices["model"]
        ),
        method=method,
        evaluator=evaluator,
        logger=logger,
        teachers=tuple(
            _teacher(cfg, name, spec["model"][CHOICE], real)
            for name, spec in (identity.get("teachers") or {}).items()
        ),
    )


def real_set(overrides: Sequence[str]) -> tuple[RealSet, dict[str, Any]]:
    """Load a real set without a run; return it and its configuration.

    Raises:
        ValueError, FileNotFoundError: an override is wrong, or the data are missing.
    """
    try:
        with initialize_config_module("dd_bench.conf", version_base="1.3"):
            cfg = compose_config("config", list(overrides), return_hydra_config=True)
    except (ConfigCompositionException, OverrideParseException) as error:
        raise ValueError(f"{' '.join(overrides)}: {error}") from error
    with _user_errors("dataset"):
        real = _build(cfg, "dataset")(device=torch.device("cpu"))
    values = OmegaConf.to_container(cfg.dataset, resolve=True)
    config: dict[str, Any] = identify({"dataset": values}, cfg.hydra.runtime.choices)["dataset"]
    return real, config


def _teacher(cfg: DictConfig, name: str, network: str, real: RealSet) -> TeacherSpec:
    values = OmegaConf.to_container(cfg.teachers[name], resolve=True)
    assert isinstance(values, dict)
    model = instantiate(cfg.teachers[name].model, _convert_="all")
    check_arguments(model.func, dict(model.keywords), f"teachers.{name}.model")
    config = parse(TeacherConfig, {str(k): v for k, v in values.items() if k != "model"}, f"teachers.{name}")
    return TeacherSpec(
        name, Architecture(model.func, dict(model.keywords), real.shape, real.num_classes, network), config
    )


def _build(cfg: DictConfig, group: str) -> Any:
    with _user_errors(group):
        values = OmegaConf.to_container(cfg[group], resolve=True)
        if isinstance(values, dict) and "_target_" in values:
            keys = {str(k): v for k, v in values.items() if not str(k).startswith("_")}
            check_arguments(get_object(values["_target_"]), keys, group)
        return instantiate(cfg[group], _convert_="all")


@contextmanager
def _user_errors(group: str) -> Iterator[None]:
    """Re-raise a constructor's error without Hydra's wrapper; add the group to the message of a TypeError."""
    try:
        yield
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, USER_ERRORS):
            raise cause from None
        if isinstance(cause, TypeError):
            raise ValueError(f"configuration group {group!r}: {cause}") from error
        raise
    except TypeError as error:
        raise ValueError(f"configuration group {group!r}: {error}") from error


def set_folder(cfg: DictConfig) -> Path:
    """Return the folder of the set to evaluate.

    Raises:
        ValueError: `set` is not given.
    """
    if cfg.set is None:
        raise ValueError(
            "set is missing. Example: dd-bench evaluate set=FOLDER dataset=digits protocol=quick"
        )
    return Path(str(cfg.set))
