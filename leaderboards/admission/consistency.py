"""Check that a record's fields match the configuration in the record. The fields determine the board."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from hydra.utils import get_class

from dd_bench.records.best_runs import best_runs
from dd_bench.records.config_diff import CHOICE, describe, shipped_config, shipped_target
from dd_bench.records.hyperparameters import stated
from dd_bench.records.metric_names import best_runs_metric
from dd_bench.records.overrides import config_overrides, dataset_overrides
from dd_bench.records.record import Record
from dd_bench.synthetic.method_limits import is_shipped

from ..core.entries import GROUPS

_AS_WRITTEN = "Submit the record.json of the run without changes"


def check_protocol(record: Record) -> None:
    """Check that the protocol is in `conf/protocol` and that its name describes its configuration.

    A protocol with changed keys is allowed. Its name contains these keys, and it has a separate board.

    Raises:
        ValueError: the protocol is not in `conf/protocol`, its version is newer than the version there, or its name
            does not describe its configuration.
    """
    name = record.protocol.name.partition("(")[0]
    shipped = shipped_config("protocol", name) if re.fullmatch("[A-Za-z0-9_-]{1,100}", name) else {}
    if "version" not in shipped:
        raise ValueError(
            f"protocol {name!r} is not in conf/protocol, so its numbers cannot be compared. Use one of "
            "`dd-bench list protocol`, or add your protocol to conf/protocol"
        )
    if record.protocol.version > shipped["version"]:
        raise ValueError(
            f"protocol {name} must have version <= {shipped['version']}, got {record.protocol.version}. "
            "Update dd_bench"
        )
    if (values := record.config.get("protocol")) and record.protocol.version == shipped["version"]:
        recipe = {k: v for k, v in values.items() if k not in ("name", "version")}
        if (expected := describe("protocol", name, recipe)) != record.protocol.name:
            raise ValueError(
                f"the protocol is named {record.protocol.name!r}, but its configuration is that of {expected!r}. "
                f"{_AS_WRITTEN}"
            )


def check_complete(record: Record) -> None:
    """Check that the configuration of a record has all groups. The other checks need them.

    The record of an imported set has the digests of its files in `released`, instead of the values of a method.

    Raises:
        ValueError: a group of the configuration is missing or empty.
    """
    imported = bool(record.config.get("released")) and not is_shipped(record.method)
    needed = [group for group in GROUPS if not (imported and group == "method")]
    if missing := [group for group in needed if not record.config.get(group)]:
        raise ValueError(f"the configuration of the record has no {', '.join(missing)}. {_AS_WRITTEN}")


def check_configuration(record: Record) -> None:
    """Check that the names in a record describe its configuration. The names determine its board.

    Raises:
        ValueError: a name does not describe its part of the configuration, a `_target_` differs from that of the YAML
            file, the configuration does not have the values that its tuning has chosen, or the value of its key
            `hyperparameters` is unknown.
    """
    config = record.config
    _check_dataset(record)
    if record.tuning and (others := record.tuning.differences(config)):
        raise ValueError(
            f"its tuning has chosen {', '.join(others)}, but its configuration differs. {_AS_WRITTEN}"
        )
    stated(config, record.method, None)  # raises if the value is unknown
    for teacher, spec in (config.get("teachers") or {}).items():
        config_overrides("teacher", teacher, spec or {})
    for group, described in (
        ("method", record.method),
        ("model", record.model),
        ("evaluator", record.evaluator),
    ):
        name, values = described.partition("(")[0], config.get(group)
        if not isinstance(values, dict) or not re.fullmatch("[A-Za-z0-9_-]{1,100}", name):
            continue  # from another package
        config_overrides(group, name, values)
        shipped = shipped_config(group, name)
        if group == "method":
            _check_parameters(name, values, shipped)
        if not shipped or group == "method":
            continue
        if group == "evaluator":
            values = {k: v for k, v in values.items() if k not in _repeats(name)}
        if (expected := describe(group, name, values)) != described:
            raise ValueError(
                f"the {group} is named {described!r}, but its configuration is that of {expected!r}. {_AS_WRITTEN}"
            )
    name = record.protocol.name.partition("(")[0]
    config_overrides("protocol", name, config.get("protocol") or {})
    # missing keys have the shipped values
    protocol = shipped_config("protocol", name) | (config.get("protocol") or {})
    if (selection := protocol.get("selection", record.selection)) != record.selection:
        raise ValueError(f"selection must be {selection!r} as in the protocol, got {record.selection!r}")
    labels = protocol.get("labels")
    modes = (
        (labels["kind"],) if isinstance(labels, dict) and "kind" in labels else ("hard", "soft", "unknown")
    )
    if protocol and record.label_mode not in modes:
        raise ValueError(
            f"label_mode must be {' or '.join(modes)} under this protocol, got {record.label_mode!r}"
        )


def _check_parameters(method: str, values: Mapping[str, Any], shipped: Mapping[str, Any]) -> None:
    """Check that a shipped method has all parameters in `values`. A method can have further networks."""
    for key, value in values.items() if shipped else ():
        if key not in shipped and not (isinstance(value, dict) and CHOICE in value):
            raise ValueError(
                f"method.{key} must be a parameter of the method {method!r}, got {value!r}. {_AS_WRITTEN}"
            )


def _repeats(evaluator: str) -> tuple[str, ...]:
    """Return the parameters of an evaluator that set the number of measurements, but do not change a measurement."""
    kind: Any = get_class(str(shipped_target("evaluator", evaluator)))
    repeats: tuple[str, ...] = kind.repeats
    return repeats


def _check_dataset(record: Record) -> None:
    values, name = record.config.get("dataset") or {}, record.dataset
    choice, shipped = values.get(CHOICE), shipped_config("dataset", name) if values else {}
    if shipped and choice != name:
        raise ValueError(
            f"the dataset is named {name!r}, but its configuration is that of {choice!r}. {_AS_WRITTEN}"
        )
    own = values.get("name", name)
    # A split, setting or subset of a dataset is named after it: cora_random_split, cora_inductive, x-classes0-4.
    if not shipped and own != name and not name.startswith((f"{own}_", f"{own}-")):
        raise ValueError(
            f"the dataset is named {name!r}, but its configuration names it {own!r}. {_AS_WRITTEN}"
        )
    if isinstance(choice, str) and shipped_config("dataset", choice):
        dataset_overrides(values, name)  # raises if overrides cannot express the values


def check_best_runs(record: Record) -> None:
    """Check that the main metric contains the networks that the protocol's `keep` selects, or all networks without it.

    Raises:
        ValueError: the main metric or its networks differ from those of the protocol.
    """
    keep, metric = record.config.get("protocol", {}).get("keep"), record.all_runs_metric
    expected = best_runs_metric(metric, keep)
    if record.main_metric != expected:
        raise ValueError(
            f"main_metric must be {expected!r} with protocol.keep={keep}, got {record.main_metric!r}. {_AS_WRITTEN}"
        )
    found = [s for s in record.scores if s.metric == expected]
    if keep is not None and found != best_runs(record.scores, metric, keep):
        raise ValueError(
            f"{expected} must be {metric} of the {keep} networks with the best validation scores (metric 'val'), got "
            f"other networks or other values. {_AS_WRITTEN}"
        )


def check_repeats(record: Record) -> None:
    """Check that the IPC, seed, number of sets and number of networks of a record are those of its configuration.

    Raises:
        ValueError: a number differs from the configuration, or the scores are not those of the configured networks.
    """
    config = record.config
    fields = {"ipc": record.ipc, "seed": record.seeds.get("run"), "num_sets": config.get("num_sets")}
    for key, value in fields.items():
        if key in config and (type(config[key]) is not int or config[key] != value):
            raise ValueError(
                f"{key} is {value!r} in the record, but {config[key]!r} in its configuration. {_AS_WRITTEN}"
            )
    networks = config.get("evaluator", {}).get("num_networks")
    if networks is not None and ((config.get("protocol") or {}).get("probe") or {}).get("ridge") is not None:
        networks = 1  # the solution has no seed, so each set has one head
    if record.status != "done" or networks is None or any(s.unit is not None for s in record.scores):
        return
    by_set: dict[int, list[int]] = defaultdict(list)
    for score in record.scores:
        if score.metric == record.all_runs_metric:
            by_set[score.set].append(score.network)
    sets = 1 if config.get("set") is not None else config.get("num_sets", 1)
    expected = {i: list(range(networks)) for i in range(sets)} if type(networks) is int else None
    if {i: sorted(found) for i, found in by_set.items()} != expected:
        text = "; ".join(
            f"set {i}: networks {', '.join(map(str, sorted(by_set[i])))}" for i in sorted(by_set)
        )
        raise ValueError(
            f"the record must have scores of {networks!r} networks for each of {sets} set(s) as in its "
            f"configuration, got {text or 'none'}"
        )
