"""Commands that reproduce an entry, built from its configuration and the shipped YAML files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dd_bench.records.config_diff import CHOICE, shipped_config
from dd_bench.records.record import Record

from .entries import TEACHER_MODES
from .row_labels import LOCATION_KEYS

_TOP_LEVEL = {"ipc": 10, "seed": 0, "num_sets": 1}
"""Keys outside any group, with their defaults in `conf/config.yaml`."""


def run_command(record: Record) -> str | None:
    """Return the `dd-bench run ...` that repeats distillation and evaluation; None if the method is not shipped.

    It does not reproduce a set that was distilled with another network than the evaluation network; see
    `evaluate_command`.

    Raises:
        ValueError: overrides of the shipped YAML files cannot express the configuration of the record.
    """
    if not shipped_config("method", _base_name(record.method)):
        return None
    values = record.config.get("method", {})
    words = [f"method={record.method}", *config_overrides("method", record.method, values)]
    words += _top_level_overrides({"ipc": record.ipc}, "ipc")
    return _command_line("run", [*words, *_evaluation_overrides(record)])


def evaluate_command(record: Record, folder: str) -> str:
    """Return the `dd-bench evaluate ...` that repeats the evaluation of the set in a folder."""
    return _command_line("evaluate", [f"set={folder}", *_evaluation_overrides(record)])


def control_command(record: Record) -> str:
    """Return the command of the random baseline with five draws that belongs to an entry."""
    words = ["method=random", *_top_level_overrides({"ipc": record.ipc}, "ipc")]
    words += [w for w in _evaluation_overrides(record) if not w.startswith("num_sets=")]
    return _command_line("run", [*words, "num_sets=5"])


def distill_command(config: Mapping[str, Any], method: str, dataset: str) -> str | None:
    """Return the `dd-bench distill ...` for the configuration in a set's card; None if the method is not shipped."""
    if not shipped_config("method", method) or "model" not in config:
        return None
    words = [f"method={method}", *config_overrides("method", method, config["method"])]
    words += _top_level_overrides(config, "ipc", "seed")
    words += dataset_overrides(config["dataset"], dataset) + _choice_overrides("model", config["model"])
    return _command_line("distill", [*words, *_teacher_overrides(config, [])])


def _evaluation_overrides(record: Record) -> list[str]:
    """Return the overrides of dataset, network, protocol, evaluator, teachers, seed and number of sets."""
    config = record.config
    words = dataset_overrides(config.get("dataset", {}), record.dataset)
    for group, described in (
        ("model", record.model),
        ("protocol", record.protocol.name),
        ("evaluator", record.evaluator),
    ):
        name = _base_name(described)
        words += [f"{group}={name}", *config_overrides(group, name, config.get(group, {}))]
    if record.teachers or record.label_mode in TEACHER_MODES:
        words += _teacher_overrides(config, [t.name for t in record.teachers])
    return words + _top_level_overrides(config, "seed", "num_sets")


def _top_level_overrides(config: Mapping[str, Any], *keys: str) -> list[str]:
    words = []
    for key in keys:
        value = config.get(key, _TOP_LEVEL[key])
        if type(value) is not int:
            raise ValueError(f"{key} must be an integer, got {value!r}")
        words += [f"{key}={value}"] if value != _TOP_LEVEL[key] else []
    return words


def _teacher_overrides(config: Mapping[str, Any], order: Sequence[str]) -> list[str]:
    """Return the choice of teachers, in the given order, and their changed values."""
    found = config.get("teachers") or {}
    names = [n for n in order if n in found] + [n for n in found if n not in order]
    if not names:
        return []
    words = [f"teacher=[{','.join(names)}]" if len(names) > 1 else f"teacher={names[0]}"]
    for name in names:
        words += _overrides(shipped_config("teacher", name), found[name], f"teachers.{name}")
    return words


def dataset_overrides(values: Mapping[str, Any], name: str) -> list[str]:
    """Return the choice of `conf/dataset` and its changed values, except where the data is stored.

    Raises:
        ValueError: the dataset is not shipped, or overrides cannot express the values.
    """
    return _choice_overrides(
        "dataset", {k: v for k, v in values.items() if k not in LOCATION_KEYS}, default=name
    )


def _choice_overrides(group: str, values: Mapping[str, Any], default: str = "") -> list[str]:
    """Return the choice that these values of a group name (else `default`), and the changed values.

    Raises:
        ValueError: the choice is not shipped.
    """
    if CHOICE not in values and default:
        return [f"{group}={_base_name(default)}"]
    choice = values.get(CHOICE)
    if not isinstance(choice, str) or not shipped_config(group, choice):
        raise ValueError(f"{group} {choice!r} is not shipped with this suite")
    return [f"{group}={choice}", *config_overrides(group, choice, values)]


def config_overrides(group: str, name: str, values: Mapping[str, Any]) -> list[str]:
    """Return the overrides that turn a shipped YAML file into `values`; empty if there is no such file.

    Raises:
        ValueError: the values name a callable that differs from the YAML, or contain an interpolation.
    """
    shipped = shipped_config(group, name)
    return list(_overrides(shipped, values, group)) if shipped else []


def _overrides(shipped: Mapping[str, Any], values: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the overrides that turn the shipped values into `values`: changed, added (`+`) or removed (`~`)."""
    for key, value in values.items():
        here = f"{path}.{key}"
        if key not in shipped and not re.fullmatch(r"[A-Za-z0-9_-]+", str(key)):
            raise ValueError(f"{here!r} is not a configuration key")
        if str(key).startswith("_"):
            if shipped.get(key) != value:
                raise ValueError(
                    f"{here} must be {shipped.get(key)!r} as in the YAML, got {value!r}; a record cannot choose "
                    "what is called"
                )
        elif key not in shipped and isinstance(value, dict) and CHOICE in value:
            yield from _added_network(value, here)
        elif key not in shipped:
            yield f"+{here}={_to_override(value, here)}"
        elif isinstance(value, dict) and isinstance(shipped[key], dict) and value:
            yield from _overrides(shipped[key], value, here)
        elif isinstance(shipped[key], dict) and value is not None and not isinstance(value, dict):
            raise ValueError(f"{here} must be a mapping as in the YAML, got {value!r}")
        elif value != shipped[key] and not _same_number(value, shipped[key]):
            yield f"{here}={_to_override(value, here)}"
    # Any other missing key was added to the YAML after the record, with a default that keeps the old behaviour.
    yield from (
        f"~{path}.{k}" for k, v in shipped.items() if k not in values and isinstance(v, dict) and CHOICE in v
    )


def _added_network(value: Mapping[str, Any], here: str) -> Iterator[str]:
    """Yield the overrides that add a shipped network at a key that the YAML does not have."""
    choice, *changes = _choice_overrides("model", value)
    yield f"+model@{here}={choice.partition('=')[2]}"
    yield from (word.replace("model.", f"{here}.", 1) for word in changes)


def _same_number(a: Any, b: Any) -> bool:
    return type(a) in (int, float) and type(b) in (int, float) and a == b


def _to_override(value: Any, here: str) -> str:
    """Return plain data in Hydra's override grammar.

    Raises:
        ValueError: a key is not a plain name, or a string contains an interpolation.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(_to_override(v, here) for v in value)}]"
    if isinstance(value, dict):
        if bad := [k for k in value if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]*", str(k))]:
            raise ValueError(f"{here}: {bad[0]!r} is not a configuration key")
        return "{" + ",".join(f"{k}:{_to_override(v, here)}" for k, v in value.items()) + "}"
    if not isinstance(value, str):
        return repr(value)
    if "${" in value:
        raise ValueError(f"{here} must be a plain value without interpolation, got {value!r}")
    reserved = ("null", "true", "false", "nan", "inf")
    if re.fullmatch(r"[A-Za-z_/][\w./:-]*", value) and value.lower() not in reserved:
        return value
    # In the grammar a backslash is an escape character only before a quote.
    return '"' + re.sub(r'(\\*)("|$)', lambda m: 2 * m[1] + ("\\" + m[2] if m[2] else ""), value) + '"'


def _base_name(described: str) -> str:
    """Return `convnet` for `convnet(width=32)`."""
    name = described.partition("(")[0]
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name):
        raise ValueError(f"{name!r} is not a configuration name")
    return name


def _command_line(verb: str, words: Sequence[str]) -> str:
    return " ".join(["dd-bench", verb, *map(shlex.quote, words)])
