"""Explain which YAML file has a required key that is missing in a configuration. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from omegaconf import OmegaConf

from dd_bench.records.config_diff import shipped_yaml
from dd_bench.records.overrides import to_override
from dd_bench.runtime.suggestions import MissingKeyError

_MAIN = "conf/config.yaml"


def explain_missing(error: MissingKeyError, choices: Mapping[str, str | None]) -> str:
    """Return one line per missing key, with its YAML file and the override that sets it.

    Args:
        error: the missing keys.
        choices: name of the selected file of each group.
    """
    return "\n".join(_explained(key, choices) for key in error.keys)


def _explained(key: str, choices: Mapping[str, str | None]) -> str:
    group, _, rest = key.partition(".")
    if not rest:
        value, file = main_values().get(key), _MAIN
    else:
        choice, path = str(choices.get(group)), rest
        if group == "teachers":
            group, (choice, _, path) = "teacher", rest.partition(".")
        value, file = _at(shipped_yaml(group, choice), path), f"conf/{group}/{choice}.yaml"
        if not shipped_yaml(group, choice):  # a file of another package
            return f"{key} is missing. Add it to the YAML file of {group}={choice}, or use +{key}=VALUE"
    if value is None or (isinstance(value, str) and "${" in value):
        return f"{key} is missing. Remove the override ~{key}, or use +{key}=VALUE"
    if isinstance(value, dict | list):
        return f"{key} is missing. {file} has its values. Remove the override ~{key}"
    setting = f"{key}={to_override(value, key)}"
    return f"{key} is missing. {file} has {setting}. Remove the override ~{key}, or use {setting} instead"


@cache
def main_values() -> dict[str, Any]:
    """Return the required keys of `conf/config.yaml` with their values, and its groups with their default choices.

    The result is cached and must not be modified.
    """
    main: Any = OmegaConf.to_container(
        OmegaConf.create((resources.files("dd_bench.conf") / "config.yaml").read_text())
    )
    groups = {
        group: name for item in main["defaults"] if isinstance(item, dict) for group, name in item.items()
    }
    optional = ("defaults", "hydra", "set", "base", "tuning", "teacher", "experiment")
    return {key: value for key, value in (main | groups).items() if key not in optional}


def _at(values: Any, path: str) -> Any:
    """Return the value at a dotted path, or None."""
    for key in path.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values
