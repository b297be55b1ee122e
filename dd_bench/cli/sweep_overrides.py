"""Expand the overrides of a sweep into jobs, and keep overrides of keys in swept groups out of Hydra's defaults."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from dd_bench.cli.hydra_patch import split_jobs

_SINGLE_VALUE = re.compile(r"(?!.*\bnull\b)[\w.+\-/:\[\]{}, ]+", re.IGNORECASE)


def expand(overrides: Sequence[str], searchpath: Sequence[str] = ()) -> list[list[str]]:
    """Return the overrides of each job of a sweep, as Hydra's basic sweeper expands them.

    `searchpath` contains further folders of configurations, whose files `glob(...)` finds too.
    """
    parsed = OverridesParser.create(loader_for(searchpath)).parse_overrides(list(overrides))
    return [[word for word in job if not word.startswith(("hydra.", "hydra/"))] for job in split_jobs(parsed)]


def loader_for(searchpath: Sequence[str]) -> ConfigLoader | None:
    """Return Hydra's loader with further folders of configurations, or None if Hydra is not initialised.

    Hydra reads `hydra.searchpath` only when it composes a configuration, not when it lists the choices of a group.
    """
    instance = GlobalHydra.instance()
    if not instance.is_initialized():
        return None
    loader = instance.config_loader()
    if not searchpath:
        return loader
    path = deepcopy(loader.get_search_path())
    for folder in searchpath:
        path.append("hydra.searchpath", folder)
    extended: ConfigLoader = type(loader)(config_search_path=path)  # type: ignore[call-arg]
    return extended


def defer_to_jobs(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a sweep, in which overrides of keys in swept groups are written as `key=choice(value)`.

    Before it starts the jobs, Hydra composes the defaults with all overrides that are not swept. Therefore
    `method=mtt,ftd method.syn_steps=30` would fail, because the default method has no such key. Hydra treats
    `choice(30)` as a sweep over one value, so it applies the override to the jobs only. Values that Hydra parses
    differently inside `choice` (null, quotes, function calls) are not replaced.
    """
    overrides = [a for a in arguments if "=" in a and not a.startswith("-")]
    try:
        parsed = dict(zip(overrides, OverridesParser.create().parse_overrides(overrides), strict=True))
    except HydraException:
        return list(arguments)  # Hydra reports the error
    swept = {o.key_or_group for o in parsed.values() if o.is_sweep_override()}

    def deferred(argument: str) -> str:
        override = parsed[argument]
        group, dot, _ = override.key_or_group.partition(".")
        if not dot or override.is_sweep_override() or override.is_hydra_override():
            return argument
        key, _, value = argument.partition("=")
        if not {group, "experiment"} & swept or not _SINGLE_VALUE.fullmatch(value):
            return argument
        return f"{key}=choice({value})"

    return [deferred(a) if a in parsed else a for a in arguments]


def typed_argument(argument: str) -> str:
    """Return an argument as the user typed it, undoing `defer_to_jobs`."""
    key, _, value = argument.partition("=choice(")
    single = value.endswith(")") and "," not in re.sub(r"\[.*\]|\{.*\}", "", value)
    return f"{key}={value[:-1]}" if single else argument
