"""The verbs that Hydra composes: prepare, distill, evaluate, run.

What each leaves behind is named by a hash of what it depends on: a run that was killed goes on, and a sweep that
was killed does only what is missing.
"""

from __future__ import annotations

import logging
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from dd_bench.pipeline.compose import compose, set_folder
from dd_bench.records.record import Record
from dd_bench.runtime import distributed
from dd_bench.runtime.files import canonical
from dd_bench.synthetic import storage
from dd_bench.synthetic.card import read_card

_log = logging.getLogger(__name__)


class Unsupported(ValueError):
    """This pair of method and dataset cannot be; a sweep goes on without it."""


def prepare(cfg: DictConfig) -> list[Path]:
    """Builds teachers and buffers, and stops there; returns their folders."""
    experiment = compose(cfg)
    if reason := experiment.check():
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
    if reason := experiment.check():
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
    if reason := experiment.check():
        return _report(*experiment.skipped(key, reason))
    return _report(*experiment.record(key, lambda: [experiment.synthetic_set(i) for i in sets]))


def evaluate(cfg: DictConfig) -> Record:
    """Evaluates the set in the folder `set`, whoever made it."""
    folder = set_folder(cfg)
    card = read_card(folder)
    experiment = compose(cfg)
    if reason := storage.fits(card, experiment.real):
        raise ValueError(f"{folder} cannot be scored on this dataset: {reason}")
    if reason := experiment.architecture.check_shape() or experiment.check_evaluation():
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
