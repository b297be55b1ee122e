"""The shipped configuration, and how a run's configuration differs from it. Does not import torch."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from operator import itemgetter
from typing import Any

from omegaconf import OmegaConf

CHOICE = "_choice_"
"""Key for the name of the YAML file of a method, network, dataset etc., see `identity`."""
STORED = "stored"
"""Key of cards and records for the precision of the stored images, if it is not the one that the method returns."""


@cache
def shipped_yaml(group: str, name: str) -> dict[str, Any]:
    """Return `conf/<group>/<name>.yaml` of this package as plain data, or an empty dict if the file does not exist.

    The defaults list is merged in Hydra's order. It can contain files of the same group (`- mtt`), and files of another
    group that are inserted at a key of this file (`/model@model: convnet`). Entries that override other groups are
    ignored. The result is cached and must not be modified.
    """
    if len(name) > 100 or not re.fullmatch("[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*", name):
        return {}
    path = resources.files("dd_bench.conf") / group / f"{name}.yaml"
    if not path.is_file():
        return {}
    own: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(path.read_text()))  # type: ignore[assignment]
    defaults = own.pop("defaults", [])
    values: dict[str, Any] = {}
    for choice in defaults if "_self_" in defaults else [*defaults, "_self_"]:
        values = _merge(values, own if choice == "_self_" else _included(group, choice))
    return values


def _included(group: str, choice: str | dict[str, str]) -> dict[str, Any]:
    """Return the values that an entry of the defaults list adds to a file in `conf/<group>`."""
    if isinstance(choice, str):  # another file of the group, e.g. `mtt` or `convnet_bn@_here_`
        return shipped_yaml(group, choice.removesuffix("@_here_"))
    ((key, name),) = choice.items()
    inner, _, package = key.removeprefix("/").partition("@")
    if key.startswith("override ") or package.partition(".")[0] in ("", "_global_"):
        return {}
    values = shipped_config(inner, name)
    for key in reversed(package.split(".")):  # e.g. `networks.mlp`
        values = {key: values}
    return values


def shipped_target(group: str, name: str) -> str | None:
    """Return the `_target_` of `conf/<group>/<name>.yaml` of this package, or None if it has none."""
    target: str | None = shipped_yaml(group, name).get("_target_")
    return target


@cache
def shipped_config(group: str, name: str) -> dict[str, Any]:
    """Return `shipped_yaml` as it appears in records, with `_choice_` instead of `_target_`."""
    raw = shipped_yaml(group, name)
    values = {k: v for k, v in raw.items() if k not in ("_target_", "_partial_")}
    return {CHOICE: name, **values} if "_target_" in raw else values


@cache
def _shipped_leaves(group: str, name: str) -> dict[str, Any]:
    return dict(leaves(shipped_config(group, name)))


def _merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """Return a recursive merge of two dicts, in which `override` takes precedence."""
    merged = dict(base)
    for key, value in override.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged


def changed_keys(group: str, name: str, values: dict[str, Any]) -> list[str]:
    """Return the values that differ from the shipped YAML, as `key=value`, sorted by key.

    A plug-in of another package has no shipped YAML. The result is then the list of all values if `group` is "model",
    and an empty list for other groups.
    """
    shipped = _shipped_leaves(group, name)
    if not shipped and group != "model":
        return []
    return [
        f"{k}={v}"
        for k, v in sorted(leaves(values), key=itemgetter(0))
        if k not in shipped or shipped[k] != v
    ]


def describe(group: str, name: str, values: dict[str, Any]) -> str:
    """Return the name with the values that differ from its YAML, e.g. `convnet(width=32)`.

    The differences are part of the name because, e.g., a changed protocol must not share a ranking with the original.
    """
    differences = changed_keys(group, name, values)
    if source := values.get("_source_"):  # a plug-in of another package, which can change without a new name
        differences = [f"source={source}", *differences]
    return f"{name}({', '.join(differences)})" if differences else name


def leaves(values: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    """Return `(dotted key, value)` for the leaves of a nested configuration, except keys that start with `_`."""
    result: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            result += leaves(value, f"{path}{key}.")
        elif not key.startswith("_"):
            result.append((f"{path}{key}", value))
    return result
