"""The command that reproduces an entry, from its configuration and the YAML files that it differs from."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from dd_bench.record import Record
from dd_bench.shipped import shipped_config

from .entries import TAUGHT

_ALONE = {"ipc": 10, "seed": 0, "num_sets": 1}
"""Keys outside of any group, with their values in `conf/config.yaml`."""


def run_command(record: Record) -> str | None:
    """Returns the `dd-bench run ...` that distils and measures anew, or None if the method is not of this suite.

    A set that was distilled with another network than it was measured with is not made by it: see `evaluate_command`.
    """
    if not shipped_config("method", record.method):
        return None
    words = [f"method={record.method}", *_changes("method", record.method, record.config.get("method", {}))]
    words += [f"ipc={record.ipc}"] if record.ipc != _ALONE["ipc"] else []
    return _line("run", [*words, *_measured(record)])


def evaluate_command(record: Record, folder: str) -> str:
    """Returns the `dd-bench evaluate ...` that measures the set in a folder anew."""
    return _line("evaluate", [f"set={folder}", *_measured(record)])


def control_command(record: Record) -> str:
    """Returns the command of the row of random images that belongs beside an entry: five draws, a network each."""
    words = ["method=random"] + ([f"ipc={record.ipc}"] if record.ipc != _ALONE["ipc"] else [])
    return _line(
        "run", [*words, *(w for w in _measured(record) if not w.startswith("num_sets=")), "num_sets=5"]
    )


def distill_command(config: Mapping[str, Any], method: str, dataset: str) -> str | None:
    """Returns the `dd-bench distill ...` of the configuration in a set's card, or None if it is of another origin."""
    if not shipped_config("method", method) or "model" not in config:
        return None
    words = [f"method={method}", *_changes("method", method, config["method"])]
    words += [f"{k}={config[k]}" for k in ("ipc", "seed") if config.get(k, _ALONE[k]) != _ALONE[k]]
    words += _dataset(config["dataset"], dataset) + _chosen("model", config["model"])
    return _line("distill", [*words, *_teachers(config, [])])


def _measured(record: Record) -> list[str]:
    """Returns the words of everything but the method: data, network, protocol, evaluator, teachers, seeds."""
    config = record.config
    words = _dataset(config.get("dataset", {}), record.dataset)
    model = record.model.partition("(")[0]
    words += [f"model={model}", *_changes("model", model, config.get("model", {}))]
    protocol = record.protocol.name.partition("(")[0]
    words += [f"protocol={protocol}", *_changes("protocol", protocol, config.get("protocol", {}))]
    evaluator = record.evaluator.partition("(")[0]
    words += [f"evaluator={evaluator}", *_changes("evaluator", evaluator, config.get("evaluator", {}))]
    if record.teachers or record.label_mode in TAUGHT:
        words += _teachers(config, [t.name for t in record.teachers])
    return words + [f"{k}={config[k]}" for k in ("seed", "num_sets") if config.get(k, _ALONE[k]) != _ALONE[k]]


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


def _dataset(values: Mapping[str, Any], name: str) -> list[str]:
    """Returns the choice of `conf/dataset`, and what differs: of several with one loader the one that differs least."""
    return _chosen("dataset", values, prefer=name)


def _chosen(group: str, values: Mapping[str, Any], prefer: str = "") -> list[str]:
    names = [p.name.removesuffix(".yaml") for p in (resources.files("dd_bench.conf") / group).iterdir()]
    same = [n for n in names if shipped_config(group, n).get("_target_") == values.get("_target_")]
    if not same:
        return [f"{group}={prefer}"] if prefer else []
    best = min(same, key=lambda n: (len(_changes(group, n, values)), n != prefer, n))
    return [f"{group}={best}", *_changes(group, best, values)]


def _changes(group: str, name: str, values: Mapping[str, Any]) -> list[str]:
    shipped = shipped_config(group, name)
    return _against(shipped, values, group) if shipped else []


def _against(shipped: Mapping[str, Any], values: Mapping[str, Any], path: str) -> list[str]:
    """Returns overrides that make the values out of the shipped ones: changed, added (`+`) and left out (`~`)."""
    return list(_differences(shipped, values, path))


def _differences(shipped: Mapping[str, Any], values: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in values.items():
        if str(key).startswith("_"):
            continue
        here = f"{path}.{key}"
        if key not in shipped:
            yield f"+{here}={_grammar(value)}"
        elif isinstance(value, dict) and isinstance(shipped[key], dict) and value:
            yield from _differences(shipped[key], value, here)
        elif value != shipped[key] and not _same_number(value, shipped[key]):
            yield f"{here}={_grammar(value)}"


def _same_number(a: Any, b: Any) -> bool:
    return type(a) in (int, float) and type(b) in (int, float) and a == b


def _grammar(value: Any) -> str:
    """Returns a value as Hydra's override grammar reads it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_grammar, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{_grammar(v)}" for k, v in value.items()) + "}"
    if not isinstance(value, str):
        return repr(value)
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


def _line(verb: str, words: Sequence[str]) -> str:
    return " ".join(["dd-bench", verb, *map(shlex.quote, words)])
