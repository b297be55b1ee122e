"""The commands `dd-bench prepare`, `distill`, `evaluate` and `run`.

The name of every output contains a hash of everything that the output depends on. So a killed run continues where it
stopped, and a killed sweep runs only the missing jobs.
"""

from __future__ import annotations

import logging
from pathlib import Path

from dd_bench.pipeline.compose import RunConfig, compose, set_folder
from dd_bench.records.record import Record
from dd_bench.runtime import distributed
from dd_bench.runtime.files import canonical
from dd_bench.synthetic import storage
from dd_bench.synthetic.card import read_card

_log = logging.getLogger(__name__)


class Unsupported(ValueError):
    """The parts of a run cannot be combined, or a run outside a sweep was skipped or has diverged."""


def prepare(config: RunConfig) -> list[Path]:
    """Build teachers and expert buffers without distilling, and return their folders."""
    experiment = compose(config)
    if reason := experiment.check():
        raise Unsupported(reason)
    with distributed.group(experiment.runtime.device):
        built = experiment.prepare()
        if distributed.rank() == 0:
            for folder, seconds in built.items():
                _log.info("prepared: %s (%.0f s)", folder, seconds)
            if not built:
                _log.info("nothing to prepare: %s uses no teachers or experts", experiment.method_name)
    return list(built)


def distill(config: RunConfig) -> list[Path]:
    """Distill the missing sets, and return the folders of all sets."""
    experiment = compose(config)
    if reason := experiment.check():
        raise Unsupported(reason)
    folders = [experiment.synthetic_set(i) for i in range(experiment.num_sets)]
    for folder in folders:
        _log.info("synthetic set: %s", folder)
    return folders


def run(config: RunConfig) -> Record:
    """Distill and evaluate, and return the record, which is also written to disk."""
    experiment = compose(config)
    sets = range(experiment.num_sets)
    keys = [experiment.set_key(i) for i in sets]
    if reason := experiment.check():
        return _report(config, *experiment.skipped(experiment.record_key(keys), reason))
    return _report(config, *experiment.record(keys, lambda: [experiment.synthetic_set(i) for i in sets]))


def evaluate(config: RunConfig) -> Record:
    """Evaluate the set in the folder `cfg.set`, and return the record, which is also written to disk."""
    folder = set_folder(config.cfg)
    card = read_card(folder)
    experiment = compose(config)
    if experiment.base is not None:
        raise ValueError(
            "`base` is the set that a distillation starts from. `dd-bench evaluate` requires base=null"
        )
    if reason := storage.check_dataset(card, experiment.real):
        raise ValueError(f"{folder} cannot be evaluated on this dataset: {reason}")
    if (
        reason := experiment.architecture.check_shape(experiment.runtime.device)
        or experiment.check_evaluation()
    ):
        raise Unsupported(reason)
    experiment.ipc, experiment.method_name = card.ipc, card.method
    model = card.config.get("model")
    if model and model != experiment.config["model"]:
        experiment.notes += (f"the set was distilled with another network: {canonical(model)}",)
    experiment.config.update(ipc=card.ipc, method=card.config.get("method", {}), base=card.config.get("base"))
    if "released" in card.config:  # files of authors, which have no configuration of a method
        experiment.config["released"] = card.config["released"]
    # the record contains the digest of the set; its parent folders exist only on this machine
    experiment.config["set"] = folder.resolve().name
    return _report(config, *experiment.record([storage.digest(folder)], lambda: [folder]))


def _report(config: RunConfig, record: Record, path: Path) -> Record:
    """Log the result and return the record.

    Raises:
        Unsupported: the run was skipped or diverged, and is not a job of a sweep.
    """
    if record.status != "done":
        message = f"{record.status}: {record.method} on {record.dataset}, ipc={record.ipc}: {record.reason}"
        if not config.in_sweep:
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
        "%s on %s%s, ipc=%d, %s: %s %.2f%s %% (%s%s)",
        record.method, record.dataset, " (validation split)" * (record.split != "test"), record.ipc,
        record.protocol.name, record.main_metric, 100 * s.mean, spread, n, interval,
    )  # fmt: skip
    _log.info("record: %s", path)
    return record
