"""Command-line overrides that turn the shipped YAML files into a recorded configuration. Does not import torch.

Records and cards may come from untrusted sources, so they must not select the code that is run, see `overrides_of`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from dd_bench.records.config_diff import CHOICE, shipped_config

LOCATION_KEYS = ("root", "download", "kept", "stream")
"""Dataset keys that control where the data is stored or how it is loaded, not its content."""


def without_local_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run without the folders of this machine, for cards and records that are published.

    The location of the dataset becomes null. Of every other absolute path, e.g. `out`, only the last name remains.
    """
    dataset = config.get("dataset")
    if isinstance(dataset, Mapping):
        config = {**config, "dataset": {k: None if k in ("root", "kept") else v for k, v in dataset.items()}}
    return {key: _without_folders(value) for key, value in config.items()}


def _without_folders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_without_folders(v) for v in value]
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value


def dataset_overrides(values: Mapping[str, Any], name: str) -> list[str]:
    """Return the overrides that select a dataset and its changed values, without `LOCATION_KEYS`.

    Raises:
        ValueError: the dataset is not shipped, or overrides cannot express the values.
    """
    return choice_overrides(
        "dataset", {k: v for k, v in values.items() if k not in LOCATION_KEYS}, default=name
    )


def choice_overrides(group: str, values: Mapping[str, Any], default: str = "") -> list[str]:
    """Return the overrides that select a YAML file of a group, e.g. `model=convnet`, and change its values.

    The file is `values["_choice_"]`. If this key is missing, only the override that selects `default` is returned.

    Raises:
        ValueError: the YAML file is not shipped.
    """
    if CHOICE not in values and default:
        return [f"{group}={base_name(default)}"]
    choice = values.get(CHOICE)
    if not isinstance(choice, str) or not shipped_config(group, choice):
        raise ValueError(f"{group} {choice!r} is not shipped with dd_bench")
    return [f"{group}={choice}", *config_overrides(group, choice, values)]


def config_overrides(group: str, name: str, values: Mapping[str, Any]) -> list[str]:
    """Return the overrides that turn a shipped YAML file into `values`; empty if there is no such file.

    Raises:
        ValueError: a key that starts with `_` differs from the YAML file, or a value contains an interpolation.
    """
    shipped = shipped_config(group, name)
    return list(overrides_of(shipped, values, group)) if shipped else []


def teacher_overrides(config: Mapping[str, Any], order: Sequence[str]) -> list[str]:
    """Return the override that selects the teachers, and one override for each value that differs from its YAML file.

    The teachers in `order` come first, in this order.
    """
    found = config.get("teachers") or {}
    names = [n for n in order if n in found] + [n for n in found if n not in order]
    if not names:
        return []
    words = [f"teacher=[{','.join(names)}]" if len(names) > 1 else f"teacher={names[0]}"]
    for name in names:
        words += overrides_of(shipped_config("teacher", name), found[name], f"teachers.{name}")
    return words


def overrides_of(shipped: Mapping[str, Any], values: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the overrides that turn the shipped values into `values`. They change, add (`+`) or remove (`~`) a key.

    Raises:
        ValueError: a key that starts with `_`, which could select code, differs; or the values are not valid.
    """
    for key, value in values.items():
        here = f"{path}.{key}"
        if key not in shipped and not re.fullmatch(r"[A-Za-z0-9_-]+", str(key)):
            raise ValueError(f"{here!r} is not a configuration key")
        if str(key).startswith("_"):
            if shipped.get(key) != value:
                raise ValueError(
                    f"{here} must be {shipped.get(key)!r} as in the YAML file, got {value!r}, because a "
                    "record must not select the code that is run"
                )
        elif key not in shipped and isinstance(value, dict) and CHOICE in value:
            yield from _added_network(value, here)
        elif key not in shipped:
            yield f"+{here}={to_override(value, here)}"
        elif isinstance(value, dict) and isinstance(shipped[key], dict) and value:
            yield from overrides_of(shipped[key], value, here)
        elif isinstance(shipped[key], dict) and value is not None and not isinstance(value, dict):
            raise ValueError(f"{here} must be a mapping as in the YAML file, got {value!r}")
        elif value != shipped[key] and not _same_number(value, shipped[key]):
            yield f"{here}={to_override(value, here)}"
    # Any other missing key was added to the YAML file later, with a default that keeps the old behaviour.
    yield from (
        f"~{path}.{k}" for k, v in shipped.items() if k not in values and isinstance(v, dict) and CHOICE in v
    )


def _added_network(value: Mapping[str, Any], here: str) -> Iterator[str]:
    """Yield the overrides that add a shipped network under a key that is missing in the YAML file."""
    choice, *changes = choice_overrides("model", value)
    yield f"+model@{here}={choice.partition('=')[2]}"
    yield from (word.replace("model.", f"{here}.", 1) for word in changes)


def _same_number(a: Any, b: Any) -> bool:
    return type(a) in (int, float) and type(b) in (int, float) and a == b


def to_override(value: Any, here: str) -> str:
    """Return plain data in Hydra's override grammar.

    Raises:
        ValueError: a key is not a plain name, or a string contains an interpolation.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(to_override(v, here) for v in value)}]"
    if isinstance(value, dict):
        if bad := [k for k in value if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]*", str(k))]:
            raise ValueError(f"{here}: {bad[0]!r} is not a configuration key")
        return "{" + ",".join(f"{k}:{to_override(v, here)}" for k, v in value.items()) + "}"
    if not isinstance(value, str):
        return repr(value)
    if "${" in value:
        raise ValueError(f"{here} must be a plain value without interpolation, got {value!r}")
    reserved = ("null", "true", "false", "nan", "inf")
    if re.fullmatch(r"[A-Za-z_/][\w./:-]*", value) and value.lower() not in reserved:
        return value
    # In the grammar a backslash is an escape character only before a quote.
    return '"' + re.sub(r'(\\*)("|$)', lambda m: 2 * m[1] + ("\\" + m[2] if m[2] else ""), value) + '"'


def base_name(described: str) -> str:
    """Return the configuration name of a method, dataset or network in a record: `convnet` for `convnet(width=32)`."""
    name = described.partition("(")[0]
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name):
        raise ValueError(f"{name!r} is not a configuration name")
    return name
