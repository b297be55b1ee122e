"""The verbs that Hydra composes: prepare, distill, evaluate, run. The only module that reads a DictConfig.

What each leaves behind is named by a hash of what it depends on: a run that was killed goes on, and a sweep that
was killed does only what is missing.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from dd_bench import artifact
from dd_bench.allocator import keep_freed_memory
from dd_bench.architecture import Architecture
from dd_bench.experiment import Experiment
from dd_bench.protocol import Protocol, parse
from dd_bench.record import Record
from dd_bench.runtime import RuntimeConfig, resolve

_log = logging.getLogger(__name__)


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
    keep_freed_memory()
    runtime = resolve(parse(RuntimeConfig, config["runtime"], "runtime"))
    protocol = parse(Protocol, config["protocol"], "protocol")
    method, evaluator = instantiate(cfg.method, _convert_="all"), instantiate(cfg.evaluator, _convert_="all")
    real = instantiate(cfg.dataset, _convert_="all")(device=runtime.device)
    model = instantiate(cfg.model, _convert_="all")  # a partial: class and knobs
    architecture = Architecture(model.func, dict(model.keywords), real.shape, real.num_classes, choices["model"])
    architecture.fresh(0, torch.device("cpu"))  # a network that cannot take these images says so now
    return Experiment(
        config=config,
        method_name=choices["method"],
        evaluator_name=choices["evaluator"],
        runtime=runtime,
        protocol=protocol,
        real=real,
        architecture=architecture,
        method=method,
        evaluator=evaluator,
        logger=instantiate(cfg.logger, _convert_="all"),
    )


def prepare(cfg: DictConfig) -> None:
    """Builds teachers and buffers, and stops there."""
    experiment = compose(cfg)
    if reason := experiment.unsupported():
        raise Unsupported(reason)
    ctx = experiment.context(experiment.set_key(0), experiment.seed, notes=[])
    experiment.method.prepare(experiment.real.train_only(), ctx)
    for name, seconds in ctx.cache.seconds.items():
        _log.info("prepared: %s (%.0f s)", ctx.cache.root / name, seconds)


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
    folder = Path(cfg.set)
    card = artifact.read_card(folder)
    experiment = compose(cfg)
    if reason := artifact.fits(card, experiment.real):
        raise ValueError(f"{folder} cannot be scored on this dataset: {reason}")
    experiment.ipc, experiment.method_name = card.ipc, card.method
    experiment.config.update(ipc=card.ipc, method=card.config.get("method", {}))
    return _report(*experiment.record(experiment.record_key([artifact.digest(folder)]), lambda: [folder]))


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
    interval = "" if s.ci_low is None or s.ci_high is None else f", 95% CI {100 * s.ci_low:.2f} to {100 * s.ci_high:.2f}"
    n = f"n={s.num_networks}" if s.num_sets == 1 else f"n={s.num_networks} networks on {s.num_sets} sets"
    _log.info(
        "%s on %s, ipc=%d, %s: %s %.2f%s %% (%s%s)",
        record.method, record.dataset, record.ipc, record.protocol.name,
        record.main_metric, 100 * s.mean, spread, n, interval,
    )  # fmt: skip
    _log.info("record: %s", path)
    return record
