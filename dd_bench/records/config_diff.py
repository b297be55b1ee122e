"""The configuration as it is shipped, and what a run changed of it. Without torch: boards need it too."""

from __future__ import annotations

import copy
import re
from functools import cache
from importlib import resources
from operator import itemgetter
from typing import Any

from omegaconf import OmegaConf

CHOICE = "_choice_"
"""Key of a part of a run that names its YAML, see `identity`."""


@cache
def _yaml(group: str, name: str) -> dict[str, Any]:
    if not re.fullmatch("[A-Za-z0-9_-]{1,100}", name):
        return {}
    path = resources.files("dd_bench.conf") / group / f"{name}.yaml"
    if not path.is_file():
        return {}
    values: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(path.read_text()))  # type: ignore[assignment]
    return values


def shipped_target(group: str, name: str) -> str | None:
    """Returns what `conf/<group>/<name>.yaml` of this package calls, or None."""
    target: str | None = _yaml(group, name).get("_target_")
    return target


@cache
def shipped_config(group: str, name: str) -> dict[str, Any]:
    """Returns the YAML `conf/<group>/<name>.yaml` of this package as plain data, to read only; empty if it has none.

    As in records, `_choice_` stands in the place of `_target_`.
    """
    raw = _yaml(group, name)
    values = {k: v for k, v in copy.deepcopy(raw).items() if k not in ("defaults", "_target_", "_partial_")}
    if "_target_" in raw:
        values = {CHOICE: name, **values}
    for choice in raw.get("defaults", []):
        if not isinstance(choice, dict):
            continue
        ((where, chosen),) = choice.items()
        inner, _, place = where.removeprefix("override ").removeprefix("/").partition("@")
        if place and not place.startswith("_global_"):  # another group's file, put inside this one
            *parents, last = place.split(".")
            into = values
            for parent in parents:
                into = into.setdefault(parent, {})
            into[last] = _merged(shipped_config(inner, chosen), into.get(last) or {})
    return values


@cache
def _shipped_leaves(group: str, name: str) -> dict[str, Any]:
    return dict(leaves(shipped_config(group, name)))


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Returns both, the second's values where they have a key in common."""
    both = dict(below)
    for key, value in above.items():
        deeper = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = _merged(both[key], value) if deeper else value
    return both


def changed(group: str, name: str, values: dict[str, Any]) -> list[str]:
    """Returns the keys of `values` that differ from the YAML, as `key=value`, sorted.

    A choice of another package has no YAML here to differ from; of a network, every knob then counts.
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
    """Returns e.g. `convnet(width=32)`: the choice, and the keys that differ from its YAML.

    A protocol with a changed key is another protocol, and must not share a ranking with the named one.
    """
    found = changed(group, name, values)
    if source := values.get("_source_"):  # of another package, whose name has no version
        found = [f"source={source}", *found]
    return f"{name}({', '.join(found)})" if found else name


def leaves(values: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    """Returns the values of a nested configuration with their dotted keys, leaving out Hydra's own."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found += leaves(value, f"{path}{key}.")
        elif not key.startswith("_"):
            found.append((f"{path}{key}", value))
    return found
