"""Commands that reproduce an entry, built from its configuration and the shipped YAML files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from dd_bench.records.config_diff import shipped_config
from dd_bench.records.overrides import (
    base_name,
    choice_overrides,
    config_overrides,
    dataset_overrides,
    teacher_overrides,
)
from dd_bench.records.record import Record
from dd_bench.synthetic.card import NAME

from .entries import TEACHER_MODES, probed_backbone

_TOP_LEVEL = {"ipc": 10, "seed": 0, "num_sets": 1}
"""Keys outside any group, with their defaults in `conf/config.yaml`."""


def run_command(record: Record) -> str | None:
    """Return the `dd-bench run ...` that repeats distillation and evaluation; None if the method is not shipped.

    The command does not reproduce a set that was distilled with another network than the evaluation network. Use
    `evaluate_command` for such a set.

    Raises:
        ValueError: overrides of the shipped YAML files cannot express the configuration of the record.
    """
    if not shipped_config("method", base_name(record.method)):
        return None
    values = record.config.get("method", {})
    words = [f"method={record.method}", *config_overrides("method", record.method, values)]
    words += _top_level_overrides({"ipc": record.ipc}, "ipc") + _base_overrides(record.config)
    return _command_line("run", [*words, *_evaluation_overrides(record)])


def evaluate_command(record: Record, folder: str) -> str:
    """Return the `dd-bench evaluate ...` that repeats the evaluation of the set in a folder."""
    return _command_line("evaluate", [f"set={folder}", *_evaluation_overrides(record)])


def control_command(record: Record) -> str:
    """Return the command that measures the random baseline for the board and IPC of a record, with five draws."""
    words = ["method=random", *_top_level_overrides({"ipc": record.ipc}, "ipc")]
    words += [w for w in _evaluation_overrides(record) if not w.startswith("num_sets=")]
    return _command_line("run", [*words, "num_sets=5"])


def distill_command(config: Mapping[str, Any], method: str, dataset: str) -> str | None:
    """Return the `dd-bench distill ...` for the configuration in a set's card.

    Return None if the method is not shipped or the configuration has no network.
    """
    if not shipped_config("method", method) or "model" not in config:
        return None
    words = [f"method={method}", *config_overrides("method", method, config["method"])]
    words += _top_level_overrides(config, "ipc", "seed") + _base_overrides(config)
    words += dataset_overrides(config["dataset"], dataset) + choice_overrides("model", config["model"])
    return _command_line("distill", [*words, *teacher_overrides(config, [])])


def _evaluation_overrides(record: Record) -> list[str]:
    """Return the overrides of dataset, network, protocol, evaluator, teachers, seed and number of sets."""
    config = record.config
    words = dataset_overrides(config.get("dataset", {}), record.dataset)
    for group, described in (
        ("model", record.model),
        ("protocol", record.protocol.name),
        ("evaluator", record.evaluator),
    ):
        name = base_name(described)
        words += [f"{group}={name}", *config_overrides(group, name, config.get(group, {}))]
    if record.teachers or record.label_mode in TEACHER_MODES or probed_backbone(record):
        words += teacher_overrides(config, [t.name for t in record.teachers])
    return words + _top_level_overrides(config, "seed", "num_sets")


def _base_overrides(config: Mapping[str, Any]) -> list[str]:
    """Return the override that selects the set from which a set was made. Its folder must be the working directory's.

    Raises:
        ValueError: the name of the set is not a file name.
    """
    base = config.get("base")
    if base is None:
        return []
    if not isinstance(base, Mapping) or not re.fullmatch(NAME, str(base.get("set", ""))):
        raise ValueError(f"base must be the description of a set, got {base!r}")
    return [f"base={base['set']}"]


def _top_level_overrides(config: Mapping[str, Any], *keys: str) -> list[str]:
    words = []
    for key in keys:
        value = config.get(key, _TOP_LEVEL[key])
        if type(value) is not int:
            raise ValueError(f"{key} must be an integer, got {value!r}")
        words += [f"{key}={value}"] if value != _TOP_LEVEL[key] else []
    return words


def _command_line(verb: str, words: Sequence[str]) -> str:
    return " ".join(["dd-bench", verb, *map(shlex.quote, words)])
