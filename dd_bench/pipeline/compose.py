"""From a composed configuration to the parts of a run. The only module that reads a DictConfig."""

from __future__ import annotations

import logging
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

_log = logging.getLogger(__name__)


USER_ERRORS = (ValueError, OSError, ImportError, Diverged, CheckpointError, OmegaConfBaseException)
"""What the user can mend: the command shows these as one message. Anything else is a bug and keeps its traceback."""


def compose(cfg: DictConfig) -> Experiment:
    """Builds all parts of an experiment from its configuration.

    Raises:
        ValueError, FileNotFoundError: a value is wrong, or the data are missing; the message says what to do.
    """
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    choices = HydraConfig.get().runtime.choices
    for name, least in (("ipc", 1), ("num_sets", 1), ("seed", 0), ("log_every", 1)):
        if type(config[name]) is not int or config[name] < least:
            raise ValueError(f"{name}={config[name]!r}: wanted a whole number >= {least}")
    if type(config["checkpoint_seconds"]) not in (int, float) or not config["checkpoint_seconds"] >= 0:
        raise ValueError(f"checkpoint_seconds={config['checkpoint_seconds']!r}: wanted a number >= 0")
    try:
        canonical(config)
    except ValueError as error:
        raise ValueError(
            f"a value of the configuration is nan or infinite ({error}); look at --cfg job"
        ) from error
    keep_freed_memory()
    torch.compiler.reset()  # a sweep's jobs share a process, and dynamo keeps only a few versions of a function
    runtime = resolve(parse(RuntimeConfig, config["runtime"], "runtime"))
    protocol = parse(Protocol, config["protocol"], "protocol")
    method, evaluator, load, model, logger = (
        _build(cfg, group) for group in ("method", "evaluator", "dataset", "model", "logger")
    )
    named = identify(config, choices)
    with _named("dataset"):
        real = load(device=runtime.device)
    if real.modality == "graph":
        runtime = runtime.in_float32()  # its networks are, on every machine, and a record says what was
    return Experiment(
        config=named,
        method_name=choices["method"],
        evaluator_name=choices["evaluator"],
        runtime=runtime,
        protocol=protocol,
        real=real,
        architecture=Architecture(  # `model` is a partial: class and knobs
            model.func, dict(model.keywords), real.shape, real.num_classes, choices["model"]
        ),
        method=method,
        evaluator=evaluator,
        logger=logger,
        teachers=tuple(
            _teacher(cfg, name, spec["model"][CHOICE], real)
            for name, spec in (named.get("teachers") or {}).items()
        ),
    )


def real_set(overrides: Sequence[str]) -> tuple[RealSet, dict[str, Any]]:
    """Loads a real set without a run; returns it and its configuration.

    Raises:
        ValueError, FileNotFoundError: an override is wrong, or the data are missing.
    """
    try:
        with initialize_config_module("dd_bench.conf", version_base="1.3"):
            cfg = compose_config("config", list(overrides), return_hydra_config=True)
    except (ConfigCompositionException, OverrideParseException) as error:
        raise ValueError(f"{' '.join(overrides)}: {error}") from error
    with _named("dataset"):
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
    with _named(group):
        values = OmegaConf.to_container(cfg[group], resolve=True)
        if isinstance(values, dict) and "_target_" in values:
            keys = {str(k): v for k, v in values.items() if not str(k).startswith("_")}
            check_arguments(get_object(values["_target_"]), keys, group)
        return instantiate(cfg[group], _convert_="all")


@contextmanager
def _named(group: str) -> Iterator[None]:
    """Passes on what a constructor says of a user's value, without Hydra's wrapping; unknown keys name the group."""
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
    """Returns the folder of the set that `dd-bench evaluate` is to measure.

    Raises:
        ValueError: none is named.
    """
    if cfg.set is None:
        raise ValueError("which set? Name its folder: dd-bench evaluate set=FOLDER dataset=... protocol=...")
    return Path(str(cfg.set))
