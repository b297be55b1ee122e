"""The command that reproduces an entry, from its configuration and the YAML files that it differs from."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dd_bench.records.config_diff import CHOICE, shipped_config
from dd_bench.records.record import Record

from .entries import TAUGHT
from .row_labels import PLACES

_ALONE = {"ipc": 10, "seed": 0, "num_sets": 1}
"""Keys outside of any group, with their values in `conf/config.yaml`."""


def run_command(record: Record) -> str | None:
    """Returns the `dd-bench run ...` that distils and measures anew, or None if the method is not of this suite.

    A set that was distilled with another network than it was measured with is not made by it: see `evaluate_command`.

    Raises:
        ValueError: the configuration of the record is more than changed values of the YAML files.
    """
    if not shipped_config("method", _name(record.method)):
        return None
    words = [f"method={record.method}", *changes("method", record.method, record.config.get("method", {}))]
    words += _alone({"ipc": record.ipc}, "ipc")
    return _line("run", [*words, *_measured(record)])


def evaluate_command(record: Record, folder: str) -> str:
    """Returns the `dd-bench evaluate ...` that measures the set in a folder anew."""
    return _line("evaluate", [f"set={folder}", *_measured(record)])


def control_command(record: Record) -> str:
    """Returns the command of the row of random images that belongs beside an entry: five draws."""
    words = ["method=random", *_alone({"ipc": record.ipc}, "ipc")]
    return _line(
        "run", [*words, *(w for w in _measured(record) if not w.startswith("num_sets=")), "num_sets=5"]
    )


def distill_command(config: Mapping[str, Any], method: str, dataset: str) -> str | None:
    """Returns the `dd-bench distill ...` of the configuration in a set's card, or None if it is of another origin."""
    if not shipped_config("method", method) or "model" not in config:
        return None
    words = [f"method={method}", *changes("method", method, config["method"])]
    words += _alone(config, "ipc", "seed")
    words += dataset_words(config["dataset"], dataset) + _chosen("model", config["model"])
    return _line("distill", [*words, *_teachers(config, [])])


def _measured(record: Record) -> list[str]:
    """Returns the words of everything but the method: data, network, protocol, evaluator, teachers, seeds."""
    config = record.config
    words = dataset_words(config.get("dataset", {}), record.dataset)
    model = _name(record.model)
    words += [f"model={model}", *changes("model", model, config.get("model", {}))]
    protocol = _name(record.protocol.name)
    words += [f"protocol={protocol}", *changes("protocol", protocol, config.get("protocol", {}))]
    evaluator = _name(record.evaluator)
    words += [f"evaluator={evaluator}", *changes("evaluator", evaluator, config.get("evaluator", {}))]
    if record.teachers or record.label_mode in TAUGHT:
        words += _teachers(config, [t.name for t in record.teachers])
    return words + _alone(config, "seed", "num_sets")


def _alone(config: Mapping[str, Any], *keys: str) -> list[str]:
    """Returns the words of keys outside of any group that have other values than the defaults."""
    words = []
    for key in keys:
        value = config.get(key, _ALONE[key])
        if type(value) is not int:
            raise ValueError(f"{key}={value!r}: wanted a whole number")
        words += [f"{key}={value}"] if value != _ALONE[key] else []
    return words


def _teachers(config: Mapping[str, Any], order: Sequence[str]) -> list[str]:
    """Returns the choice of teachers, in their order, and what differs of each."""
    found = config.get("teachers") or {}
    names = [n for n in order if n in found] + [n for n in found if n not in order]
    if not names:
        return []
    words = [f"teacher=[{','.join(names)}]" if len(names) > 1 else f"teacher={names[0]}"]
    for name in names:
        shipped = shipped_config("teacher", name)
        words += _against(shipped, found[name], f"teachers.{name}")
    return words


def dataset_words(values: Mapping[str, Any], name: str) -> list[str]:
    """Returns the choice of `conf/dataset`, and what differs; where the data lay is nobody else's.

    Raises:
        ValueError: no choice is made so, or more than values differ.
    """
    return _chosen("dataset", {k: v for k, v in values.items() if k not in PLACES}, prefer=name)


def _chosen(group: str, values: Mapping[str, Any], prefer: str = "") -> list[str]:
    """Returns the choice of a group that these values name, and what differs from it.

    Raises:
        ValueError: no choice has that name.
    """
    if CHOICE not in values and prefer:
        return [f"{group}={_name(prefer)}"]
    choice = values.get(CHOICE)
    if not isinstance(choice, str) or not shipped_config(group, choice):
        raise ValueError(f"{choice!r} is no {group} of this suite")
    return [f"{group}={choice}", *changes(group, choice, values)]


def changes(group: str, name: str, values: Mapping[str, Any]) -> list[str]:
    """Returns the overrides that make the values of a group out of its YAML; none if it has none of that name.

    Raises:
        ValueError: the values name something to be called that the YAML does not, or ask for the environment.
    """
    shipped = shipped_config(group, name)
    return _against(shipped, values, group) if shipped else []


def _against(shipped: Mapping[str, Any], values: Mapping[str, Any], path: str) -> list[str]:
    """Returns overrides that make the values out of the shipped ones: changed, added (`+`), left out (`~`).

    Raises:
        ValueError: the values name something to be called that the shipped ones do not, or ask for the environment.
    """
    return list(_differences(shipped, values, path))


def _differences(shipped: Mapping[str, Any], values: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in values.items():
        here = f"{path}.{key}"
        if key not in shipped and not re.fullmatch(r"[A-Za-z0-9_-]+", str(key)):
            raise ValueError(f"{here!r} is no key of a configuration")
        if str(key).startswith("_"):
            if shipped.get(key) != value:
                raise ValueError(
                    f"{here}={value!r}: a record holds names and values; the YAML has {shipped.get(key)!r}"
                )
        elif key not in shipped and isinstance(value, dict) and CHOICE in value:
            yield from _another_network(value, here)
        elif key not in shipped:
            yield f"+{here}={_grammar(value, here)}"
        elif isinstance(value, dict) and isinstance(shipped[key], dict) and value:
            yield from _differences(shipped[key], value, here)
        elif isinstance(shipped[key], dict) and value is not None and not isinstance(value, dict):
            raise ValueError(f"{here}={value!r}: wanted keys and values, as the YAML has")
        elif value != shipped[key] and not _same_number(value, shipped[key]):
            yield f"{here}={_grammar(value, here)}"
    # a key that is missing otherwise is younger than the record, and its default is what the record had
    yield from (
        f"~{path}.{k}" for k, v in shipped.items() if k not in values and isinstance(v, dict) and CHOICE in v
    )


def _another_network(value: Mapping[str, Any], here: str) -> Iterator[str]:
    """Yields the words that put a shipped network where the YAML has none."""
    choice, *changes = _chosen("model", value)
    yield f"+model@{here}={choice.partition('=')[2]}"
    yield from (word.replace("model.", f"{here}.", 1) for word in changes)


def _same_number(a: Any, b: Any) -> bool:
    return type(a) in (int, float) and type(b) in (int, float) and a == b


def _grammar(value: Any, here: str) -> str:
    """Returns a value as Hydra's override grammar reads it, if it is plain data."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(_grammar(v, here) for v in value)}]"
    if isinstance(value, dict):
        if bad := [k for k in value if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]*", str(k))]:
            raise ValueError(f"{here} has a key {bad[0]!r}, which is none of a configuration")
        return "{" + ",".join(f"{k}:{_grammar(v, here)}" for k, v in value.items()) + "}"
    if not isinstance(value, str):
        return repr(value)
    if "${" in value:
        raise ValueError(f"{here}={value!r}: a record holds values, and nothing to be looked up")
    if re.fullmatch(r"[A-Za-z_/][\w./:-]*", value) and value.lower() not in (
        "null",
        "true",
        "false",
        "nan",
        "inf",
    ):
        return value
    # backslashes are escaped before a quote alone
    return '"' + re.sub(r'(\\*)("|$)', lambda m: 2 * m[1] + ("\\" + m[2] if m[2] else ""), value) + '"'


def _name(described: str) -> str:
    """Returns the choice of `convnet(width=32)`."""
    name = described.partition("(")[0]
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name):
        raise ValueError(f"{name!r} is no name of a choice")
    return name


def _line(verb: str, words: Sequence[str]) -> str:
    return " ".join(["dd-bench", verb, *map(shlex.quote, words)])
