"""Identify a method, network, dataset or evaluator by its configuration name and its hyper-parameters.

Keys, records and cards contain the name of the YAML file and its values, such as
`{"_choice_": "ftd", "ema": 0.9995, ...}`. The Python path of a class is not included, so that caches, sets and entries
remain valid if the module of the class is moved or renamed. A plug-in of another package can change without a new name.
It is therefore also identified by a hash of its source code, `_source_`.
"""

from __future__ import annotations

import hashlib
import inspect
import linecache
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from dd_bench.records.config_diff import CHOICE, shipped_target

SOURCE = "_source_"
PACKAGE_PREFIX = "dd_bench."


def identify(config: Mapping[str, Any], choices: Mapping[str, str | None]) -> dict[str, Any]:
    """Return a resolved configuration in which every `_target_` is replaced by the name of its YAML file.

    Args:
        config: a run's configuration by group, as composed by Hydra.
        choices: Hydra's choices, e.g. `{"method": "ftd", "model@teachers.convnet_bn.model": "convnet"}`.

    Raises:
        ValueError: a `_target_` was not selected by a YAML file, or differs from that of the shipped YAML file.
    """
    group_and_name = {key.rpartition("@")[2]: (key.partition("@")[0], name) for key, name in choices.items()}
    return {key: _identify(value, str(key), group_and_name) for key, value in config.items()}


def _identify(value: Any, path: str, group_and_name: Mapping[str, tuple[str, str | None]]) -> Any:
    if isinstance(value, list):
        return [_identify(v, f"{path}[{i}]", group_and_name) for i, v in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    inner = {
        k: _identify(v, f"{path}.{k}", group_and_name) for k, v in value.items() if not str(k).startswith("_")
    }
    if "_target_" not in value or path.startswith("logger"):  # loggers do not affect results
        return inner
    target, (group, name) = str(value["_target_"]), group_and_name.get(path, ("", None))
    if name is None:
        raise ValueError(
            f"{path}._target_={target} must be selected by the name of a YAML file in conf/. Example: "
            f"+model@{path}=convnet"
        )
    shipped = shipped_target(group, name)
    if shipped is not None and shipped != target:
        raise ValueError(
            f"{path}._target_ must be {shipped}, the target in the shipped conf/{group}/{name}.yaml, got {target}. "
            f"Records contain only the name {name!r}. Use a YAML file with another name: conf/{group}/NAME.yaml"
        )
    source: dict[str, str] = {}
    if not target.startswith(PACKAGE_PREFIX):
        from hydra.utils import get_object

        source = plugin_source(get_object(target))  # imports the plug-in
    return {CHOICE: name, **source, **inner}


def plugin_source(target: Any) -> dict[str, str]:
    """Return `{"_source_": hash}` with the hash of the source code of the module that defines a class or function.

    Return `{}` if the module belongs to dd_bench, or if there is no source code.
    """
    target = inspect.unwrap(target)
    module: Any = inspect.getmodule(target)
    if module is not None and module.__name__.startswith(PACKAGE_PREFIX):
        return {}
    readers: list[tuple[Callable[[Any], str], Any]] = [
        (inspect.getsource, module),
        (_cells, target),
        (inspect.getsource, target),
    ]
    for read, part in readers:
        with suppress(OSError, TypeError):  # no source code, e.g. defined in an interactive session
            if text := read(part):
                return {SOURCE: hashlib.sha256(text.encode()).hexdigest()[:16]}
    return {}


def _cells(target: Any) -> str:
    """Return the text of the notebook cells that define a function, or a class and its base classes.

    `inspect.getsource` finds the functions of a notebook, but not its classes.
    """
    names = set()
    for owner in getattr(target, "__mro__", (target,)):
        if owner.__module__ == target.__module__:
            members = [owner, *vars(owner).values()]
            names |= {f.__code__.co_filename for f in members if inspect.isfunction(f)}
    return "".join(sorted("".join(linecache.getlines(name)) for name in names))
