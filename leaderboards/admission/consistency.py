"""What a record says of itself against its own configuration, which chooses its board."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from hydra.utils import get_class

from dd_bench.records.config_diff import CHOICE, describe, shipped_config, shipped_target
from dd_bench.records.record import Record

from ..core.commands import changes, dataset_words
from ..core.entries import GROUPS


def check_protocol(record: Record) -> None:
    """Refuses a protocol that nobody else can follow, and names that their configuration belies.

    A protocol with changed keys is known, says so in its name, and has a board of its own.

    Raises:
        ValueError: no such protocol is shipped, its version is still to come, or a name is not that of its values.
    """
    name = record.protocol.name.partition("(")[0]
    shipped = shipped_config("protocol", name) if re.fullmatch("[A-Za-z0-9_-]{1,100}", name) else {}
    if "version" not in shipped:
        raise ValueError(
            f"protocol {name!r} is none of conf/protocol, and its numbers compare with nothing. Measure under one of "
            "`dd-bench list protocol`, or add yours there first"
        )
    if record.protocol.version > shipped["version"]:
        raise ValueError(
            f"protocol {name} v{record.protocol.version}: this version of dd_bench knows v{shipped['version']}. "
            "Update it"
        )
    if (values := record.config.get("protocol")) and record.protocol.version == shipped["version"]:
        recipe = {k: v for k, v in values.items() if k not in ("name", "version")}
        if (wanted := describe("protocol", name, recipe)) != record.protocol.name:
            raise ValueError(f"protocol {record.protocol.name!r} has the configuration of {wanted!r}")


def check_whole(record: Record) -> None:
    """Refuses a record that leaves out how it came about: then nothing belies what it says of itself.

    Raises:
        ValueError: which part of its configuration is missing.
    """
    if missing := [group for group in GROUPS if not record.config.get(group)]:
        raise ValueError(
            f"its configuration has no {', '.join(missing)}: hand in the record as the run wrote it"
        )


def check_configuration(record: Record) -> None:
    """Refuses a record whose names are not those of its own configuration: they choose its board.

    Raises:
        ValueError: which name, and what the configuration has; or something is called that the YAML does not call.
    """
    config = record.config
    _check_dataset(record)
    for teacher, spec in (config.get("teachers") or {}).items():
        changes("teacher", teacher, spec or {})
    for group, described in (
        ("method", record.method),
        ("model", record.model),
        ("evaluator", record.evaluator),
    ):
        name, values = described.partition("(")[0], config.get(group)
        if not isinstance(values, dict) or not re.fullmatch("[A-Za-z0-9_-]{1,100}", name):
            continue  # of another package
        changes(group, name, values)
        if not shipped_config(group, name) or group == "method":
            continue
        if group == "evaluator":
            values = {k: v for k, v in values.items() if k not in _repeats(name)}
        if (wanted := describe(group, name, values)) != described:
            raise ValueError(f"{group} {described!r} has the configuration of {wanted!r}")
    name = record.protocol.name.partition("(")[0]
    changes("protocol", name, config.get("protocol") or {})
    protocol = shipped_config("protocol", name) | (
        config.get("protocol") or {}
    )  # what is left out is as it is shipped
    if (selection := protocol.get("selection", record.selection)) != record.selection:
        raise ValueError(f"selection {record.selection!r}: its protocol has {selection!r}")
    labels = protocol.get("labels")
    told = (labels["kind"],) if isinstance(labels, dict) and "kind" in labels else ("hard", "soft", "unknown")
    if protocol and record.label_mode not in told:
        raise ValueError(f"label_mode {record.label_mode!r}: its protocol has {' or '.join(told)} labels")


def _repeats(evaluator: str) -> tuple[str, ...]:
    """Returns the knobs of an evaluator that say how often it measures, and not what."""
    kind: Any = get_class(str(shipped_target("evaluator", evaluator)))
    repeats: tuple[str, ...] = kind.repeats
    return repeats


def _check_dataset(record: Record) -> None:
    values, name = record.config.get("dataset") or {}, record.dataset
    choice, shipped = values.get(CHOICE), shipped_config("dataset", name) if values else {}
    if shipped and choice != name:
        raise ValueError(f"dataset {name!r}: its configuration is that of {choice!r}")
    if not shipped and values.get("name", name) != name:
        raise ValueError(f"dataset {name!r}: its configuration has the name {values['name']!r}")
    if isinstance(choice, str) and shipped_config("dataset", choice):
        dataset_words(values, name)  # it refuses more than changed values; another package's are its own


def check_repeats(record: Record) -> None:
    """Refuses values of fewer or other networks than the configuration asks, and another IPC or seed than it has.

    Raises:
        ValueError: which.
    """
    config = record.config
    told = {"ipc": record.ipc, "seed": record.seeds.get("run"), "num_sets": config.get("num_sets")}
    for key, said in told.items():
        if key in config and (type(config[key]) is not int or config[key] != said):
            raise ValueError(f"{key} {said!r}: its configuration has {config[key]!r}")
    asked = config.get("evaluator", {}).get("num_networks")
    if record.status != "done" or asked is None or any(s.unit is not None for s in record.scores):
        return
    by_set: dict[int, list[int]] = defaultdict(list)
    for score in record.scores:
        if score.metric == record.main_metric:
            by_set[score.set].append(score.network)
    sets = 1 if config.get("set") is not None else config.get("num_sets", 1)
    wanted = {i: list(range(asked)) for i in range(sets)} if type(asked) is int else None
    if {i: sorted(networks) for i, networks in by_set.items()} != wanted:
        found = "; ".join(f"set {i}: {', '.join(map(str, sorted(by_set[i])))}" for i in sorted(by_set))
        raise ValueError(
            f"it has values of networks ({found}), and its configuration asks {asked!r} networks of {sets} set(s)"
        )
