"""The overrides of a sweep: its jobs, and how a key of a swept group is kept from the default choice."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from dd_bench.cli.hydra_patch import split_jobs

_SINGLE_VALUE = re.compile(r"(?!.*\bnull\b)[\w.+\-/:\[\]{}, ]+", re.IGNORECASE)


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Returns the overrides of each job that Hydra's basic sweeper makes from those of a sweep."""
    instance = GlobalHydra.instance()  # its loader lists the files that glob(...) matches
    loader = instance.config_loader() if instance.is_initialized() else None
    parsed = OverridesParser.create(loader).parse_overrides(list(overrides))
    return [[word for word in job if not word.startswith("hydra")] for job in split_jobs(parsed)]


def defer_to_jobs(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of a sweep; the value of a key in a swept group becomes a choice of one: `k=choice(30)`.

    Hydra applies a plain value to the default choice too, before there is any job, so that
    `method=mtt,ftd method.syn_steps=30` would fail at a default method without that key. Values that Hydra reads
    differently inside `choice` (null, quotes, function calls) are not changed.
    """
    overrides = [a for a in arguments if "=" in a and not a.startswith("-")]
    try:
        parsed = dict(zip(overrides, OverridesParser.create().parse_overrides(overrides), strict=True))
    except HydraException:
        return list(arguments)  # Hydra reports what is wrong with them
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
    """Returns an argument as it was typed, before `defer_to_jobs`."""
    key, _, value = argument.partition("=choice(")
    single = value.endswith(")") and "," not in re.sub(r"\[.*\]|\{.*\}", "", value)
    return f"{key}={value[:-1]}" if single else argument
