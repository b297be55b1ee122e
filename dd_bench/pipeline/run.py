"""The verbs that Hydra composes: prepare, distill, evaluate, run. The only module that reads a DictConfig.

What each leaves behind is named by a hash of what it depends on: a run that was killed goes on, and a sweep that
was killed does only what is missing.
"""

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
from hydra.types import RunMode
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dd_bench.data.dataset import RealSet
from dd_bench.models.architecture import Architecture
from dd_bench.pipeline.arguments import check_arguments
from dd_bench.pipeline.experiment import Experiment
from dd_bench.records.record import Record
from dd_bench.runtime import distributed
from dd_bench.runtime.allocator import keep_freed_memory
from dd_bench.runtime.checkpoint import Unusable
from dd_bench.runtime.files import canonical
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.runtime.runtime import RuntimeConfig, resolve
from dd_bench.synthetic import storage
from dd_bench.synthetic.card import read_card
from dd_bench.teachers.teachers import TeacherConfig, TeacherSpec
from dd_bench.training.protocol import Protocol
from dd_bench.training.recipe import parse

_log = logging.getLogger(__name__)


MENDABLE = (ValueError, OSError, ImportError, Diverged, Unusable, OmegaConfBaseException)
"""What the user can mend: the command shows these as one message. Anything else is a bug and keeps its traceback."""


class Unsupported(ValueError):
    """This pair of method and dataset cannot be; a sweep goes on without it."""


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
    with _named("dataset"):
        real = load(device=runtime.device)
    if real.modality == "graph":
        runtime = runtime.exact()  # its networks are, on every machine, and a record says what was
    return Experiment(
        config=config,
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
        teachers=tuple(_teacher(cfg, name, real) for name in config.get("teachers") or {}),
    )


def real_set(overrides: Sequence[str]) -> tuple[RealSet, dict[str, Any]]:
    """Loads a real set without a run; returns it and its configuration.

    Raises:
        ValueError, FileNotFoundError: an override is wrong, or the data are missing.
    """
    try:
        with initialize_config_module("dd_bench.conf", version_base="1.3"):
            cfg = compose_config("config", list(overrides))
    except (ConfigCompositionException, OverrideParseException) as error:
        raise ValueError(f"{' '.join(overrides)}: {error}") from error
    with _named("dataset"):
        real = _build(cfg, "dataset")(device=torch.device("cpu"))
    config: dict[str, Any] = OmegaConf.to_container(cfg.dataset, resolve=True)  # type: ignore[assignment]
    return real, config


def _teacher(cfg: DictConfig, name: str, real: RealSet) -> TeacherSpec:
    values = OmegaConf.to_container(cfg.teachers[name], resolve=True)
    assert isinstance(values, dict)
    model = instantiate(cfg.teachers[name].model, _convert_="all")
    check_arguments(model.func, dict(model.keywords), f"teachers.{name}.model")
    config = parse(TeacherConfig, {str(k): v for k, v in values.items() if k != "model"}, f"teachers.{name}")
    return TeacherSpec(
        name, Architecture(model.func, dict(model.keywords), real.shape, real.num_classes, name), config
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
        if isinstance(cause, MENDABLE):
            raise cause from None
        if isinstance(cause, TypeError):
            raise ValueError(f"configuration group {group!r}: {cause}") from error
        raise
    except TypeError as error:
        raise ValueError(f"configuration group {group!r}: {error}") from error


def prepare(cfg: DictConfig) -> list[Path]:
    """Builds teachers and buffers, and stops there; returns their folders."""
    experiment = compose(cfg)
    if reason := experiment.unsupported():
        raise Unsupported(reason)
    with distributed.group(experiment.runtime.device):
        made = experiment.prepare()
        if distributed.rank() == 0:
            for folder, seconds in made.items():
                _log.info("prepared: %s (%.0f s)", folder, seconds)
            if not made:
                _log.info("nothing to prepare: %s shares nothing between runs", experiment.method_name)
    return list(made)


def distill(cfg: DictConfig) -> list[Path]:
    """Distils the sets that are missing; returns the folders of all."""
    experiment = compose(cfg)
    if reason := experiment.unsupported():
        raise Unsupported(reason)
    folders = [experiment.synthetic_set(i) for i in range(experiment.num_sets)]
    for folder in folders:
        _log.info("synthetic set: %s", folder)
    return folders


def run(cfg: DictConfig) -> Record:
    """Distils and evaluates; returns the record, which is also on the disk."""
    experiment = compose(cfg)
    sets = range(experiment.num_sets)
    key = experiment.record_key([experiment.set_key(i) for i in sets])
    if reason := experiment.unsupported():
        return _report(*experiment.skipped(key, reason))
    return _report(*experiment.record(key, lambda: [experiment.synthetic_set(i) for i in sets]))


def evaluate(cfg: DictConfig) -> Record:
    """Evaluates the set in the folder `set`, whoever made it."""
    if cfg.set is None:
        raise ValueError("which set? Name its folder: dd-bench evaluate set=FOLDER dataset=... protocol=...")
    folder = Path(str(cfg.set))
    card = read_card(folder)
    experiment = compose(cfg)
    if reason := storage.fits(card, experiment.real):
        raise ValueError(f"{folder} cannot be scored on this dataset: {reason}")
    evaluator = experiment.evaluator
    if reason := (
        experiment.architecture.unfit()
        or evaluator.refuses(experiment.protocol)
        or evaluator.unfit(experiment.real, experiment.architecture)
    ):
        raise Unsupported(reason)
    experiment.ipc, experiment.method_name = card.ipc, card.method
    made_with = card.config.get("model")
    if made_with and made_with != experiment.config["model"]:
        experiment.remarks = (f"the set was distilled with another network: {canonical(made_with)}",)
    experiment.config.update(ipc=card.ipc, method=card.config.get("method", {}))
    # where it lay is of this machine; its digest is in the record
    experiment.config["set"] = folder.resolve().name
    return _report(*experiment.record(experiment.record_key([storage.digest(folder)]), lambda: [folder]))


def _report(record: Record, path: Path) -> Record:
    """Shows what came out; a single run that was skipped or diverged ends with an error, a sweep goes on."""
    if record.status != "done":
        message = f"{record.status}: {record.method} on {record.dataset}, ipc={record.ipc}: {record.reason}"
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            raise Unsupported(f"{message}\nrecord: {path}")
        _log.warning(message)
        return record
    s = record.summary()
    spread = "" if s.std is None else f" ± {100 * s.std:.2f}"
    interval = (
        ""
        if s.ci_low is None or s.ci_high is None
        else f", 95% CI {100 * s.ci_low:.2f} to {100 * s.ci_high:.2f}"
    )
    n = f"n={s.num_networks}" if s.num_sets == 1 else f"n={s.num_networks} networks on {s.num_sets} sets"
    _log.info(
        "%s on %s, ipc=%d, %s: %s %.2f%s %% (%s%s)",
        record.method, record.dataset, record.ipc, record.protocol.name,
        record.main_metric, 100 * s.mean, spread, n, interval,
    )  # fmt: skip
    _log.info("record: %s", path)
    return record
