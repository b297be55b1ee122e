"""What a method, network, dataset or evaluator is: its configuration name and its hyper-parameters.

In keys, records and cards a part of a run is `{"_choice_": "ftd", "ema": 0.9995, ...}`: the name of its YAML and its
values. The Python path of a class is no part of it, so that a file can be moved and renamed without orphaning a cache,
a set or an entry. A plug-in of another package is identified by its source too, as `_source_`: its name has no version.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from typing import Any

from dd_bench.records.config_diff import CHOICE, shipped_target

SOURCE = "_source_"
OURS = "dd_bench."


def identify(config: Mapping[str, Any], choices: Mapping[str, str | None]) -> dict[str, Any]:
    """Returns a resolved configuration with the name of each choice in the place of what it calls.

    Args:
        config: of a run, by group, as Hydra composes it.
        choices: Hydra's, e.g. `{"method": "ftd", "model@teachers.convnet_bn.model": "convnet"}`.

    Raises:
        ValueError: something is called that no choice names, or a shipped name stands for something else.
    """
    named = {where.rpartition("@")[2]: (where.partition("@")[0], name) for where, name in choices.items()}
    return {key: _identify(value, str(key), named) for key, value in config.items()}


def _identify(value: Any, path: str, named: Mapping[str, tuple[str, str | None]]) -> Any:
    if isinstance(value, list):
        return [_identify(v, f"{path}[{i}]", named) for i, v in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    inner = {k: _identify(v, f"{path}.{k}", named) for k, v in value.items() if not str(k).startswith("_")}
    if "_target_" not in value or path.startswith("logger"):  # where losses go is no part of a result
        return inner
    target, (group, name) = str(value["_target_"]), named.get(path, ("", None))
    if name is None:
        raise ValueError(
            f"{path}._target_={target}: a part of a run is named by its choice. Use a file of conf/, e.g. "
            f"+model@{path}=convnet"
        )
    shipped = shipped_target(group, name)
    if shipped is not None and shipped != target:
        raise ValueError(
            f"{path}._target_={target}: {group}={name} is the name of {shipped} in every record. Use a YAML of another "
            f"name, conf/{group}/NAME.yaml"
        )
    source = {} if target.startswith(OURS) else _source(target)
    return {CHOICE: name, **source, **inner}


def _source(target: str) -> dict[str, str]:
    from hydra.utils import get_object  # imports the plug-in

    return plugin_source(get_object(target))


def plugin_source(target: Any) -> dict[str, str]:
    """Returns the hash of the module of a class or function of another package, as `_source_`; empty for ours."""
    target = inspect.unwrap(target)
    module: Any = inspect.getmodule(target)
    if module is not None and module.__name__.startswith(OURS):
        return {}
    for source in (module, target):
        try:
            return {SOURCE: hashlib.sha256(inspect.getsource(source).encode()).hexdigest()[:16]}
        except (OSError, TypeError):  # typed into an interpreter
            continue
    return {}
