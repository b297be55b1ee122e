"""Refuse configuration keys that no part of a run reads, and explain Hydra's errors with the nearest known names.

Does not import torch.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dd_bench.pipeline.missing_keys import explain_missing, main_values
from dd_bench.records.overrides import to_override
from dd_bench.runtime.suggestions import MissingKeyError, did_you_mean, unknown_key

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException)
"""Errors of Hydra for overrides that do not compose."""
_ADVICE = re.compile(
    r"\n(To append to your|Either remove|Or add|Config search path|Available options|See https)[\s\S]*"
)


def check_keys(cfg: DictConfig) -> None:
    """Check the top-level keys of a composed configuration. The keys of a group are checked when it is built.

    Raises:
        MissingKeyError: a required key of `conf/config.yaml` is missing.
        ValueError: a key is not in `conf/config.yaml`, and no interpolation reads it.
    """
    known = _top_level_keys()
    missing = [key for key in main_values() if key not in cfg]
    if (
        "method" not in missing and "_target_" not in cfg.method
    ):  # with ~method, only the keys of every method are left
        missing.append("method")
    if missing:
        raise MissingKeyError(missing)
    for key in (str(k) for k in cfg if k not in known):
        if not re.search(rf"\$\{{{re.escape(key)}\b", OmegaConf.to_yaml(cfg)):
            others = [k for k in keys_of(cfg) if k.partition(".")[0] in known]
            raise ValueError(unknown_key(key, others))
    teachers = cfg.get("teachers") or {}
    if not hasattr(teachers, "items"):
        raise ValueError(
            f"teachers must map names to teachers, got {teachers!r}. Example: teacher=convnet_bn"
        )
    for name, teacher in teachers.items():
        if not isinstance(teacher, DictConfig) or "model" not in teacher:
            raise ValueError(unknown_key(f"teachers.{name}", ()))


def check_hydra_keys(hydra: Any) -> None:
    """Check the keys of the node `hydra`. Hydra accepts every key that is added with `+`.

    The schemas are those of Hydra and of its plug-ins: every node that has one knows its dataclass.

    Raises:
        ValueError: a key is not in the schema of its node.
    """
    groups = {str(name).removeprefix("hydra/") for name in hydra.runtime.choices}  # e.g. hydra/env
    unknown = [key for key in _unknown_keys(hydra, "hydra.") if key.removeprefix("hydra.") not in groups]
    if unknown:
        known = [key for key in keys_of(hydra, "hydra.") if key not in unknown]
        raise ValueError(unknown_key(unknown[0], known))


def _unknown_keys(node: DictConfig, path: str) -> Iterator[str]:
    """Yield the keys, below `path`, that are not in the schema of their node. Nodes without schema have any keys."""
    schema = OmegaConf.get_type(node)
    known = {field.name for field in fields(schema)} if is_dataclass(schema) else None
    for key in map(str, node):
        if known is not None and key not in known:
            yield path + key
            continue
        value = node._get_node(key)
        if isinstance(value, DictConfig) and not value._is_none() and not value._is_missing():
            yield from _unknown_keys(value, f"{path}{key}.")


@cache
def _top_level_keys() -> frozenset[str]:
    main = OmegaConf.create((resources.files("dd_bench.conf") / "config.yaml").read_text())
    groups = {str(name) for item in main.defaults if isinstance(item, DictConfig) for name in item}
    return frozenset(groups | {str(key) for key in main if key != "defaults"} | {"teachers"})


def keys_of(cfg: DictConfig, path: str = "") -> list[str]:
    """Return the dotted keys of a configuration, except those of `hydra` and those that start with `_`."""
    found = []
    for key in (str(k) for k in cfg if not str(k).startswith("_") and k != "hydra"):
        found.append(path + key)
        value = cfg._get_node(key)
        if isinstance(value, DictConfig) and not value._is_none():
            found += keys_of(value, f"{path}{key}.")
    return found


def explain(
    error: Exception, overrides: Sequence[str], compose: Callable[[list[str]], DictConfig] | None = None
) -> str:
    """Return a message for an error of Hydra's composition, without advice that does not help here.

    Args:
        error: one of `COMPOSITION_ERRORS`.
        overrides: the overrides that do not compose.
        compose: composes other overrides, to find the known keys; None if this is not possible.
    """
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _unknown_choice(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, str(error))
    text = " ".join(_ADVICE.sub("", str(error)).split()) or str(error.__cause__ or error)
    if (found := re.match("Interpolation key '([^']+)' not found", text)) and found[1] in main_values():
        return explain_missing(MissingKeyError([found[1]]), {})
    if found := re.match(r"Could not delete from config\. '([^']+)' does not exist", text):
        known = _known_keys(found[1], overrides, compose) if compose else []
        if found[1] in known:  # Hydra's message for a key whose value is null
            return f"{found[1]} is null already, so ~{found[1]} is not needed. To change it: {found[1]}=VALUE"
        return unknown_key(found[1], known)
    if found := re.match(r"Could not (?:override|delete) (?:from config\. )?'([^'@]+)'", text):
        return unknown_key(found[1], _known_keys(found[1], overrides, compose) if compose else ())
    if found := re.match(r"(\S+) appears more than once in the final defaults list", text):
        return f"{found[1]} is selected already. Use {found[1]}=NAME instead of +{found[1]}=NAME"
    if found := re.match(r"Could not append to config\. An item is already at '([^']+)'", text):
        return f"{found[1]} exists already. Use {found[1]}=VALUE instead of +{found[1]}=VALUE"
    return text


def _unreadable(override: str, reason: str) -> str:
    key, equals, value = override.partition("=")
    message = f"{override} cannot be parsed: {' '.join(_ADVICE.sub('', reason).split())}"
    if not equals:
        return f"{message}. An override has the form KEY=VALUE"
    return f"{message}. If the value is text, put it in quotes: {shlex.quote(f'{key}={to_override(value, key)}')}"


def _unknown_choice(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = list(error.options or ())
    near = get_close_matches(name, options, 3, 0.4) or options[:3]
    if "/" in group or not options:  # a choice in a subfolder, e.g. experiment=paper/cifar10/x
        group, _, name = str(error.missing_cfg_file).partition("/")
    return f"{group}={name} does not exist{did_you_mean(near) or '.'} To list all: dd-bench list {group}"


def _known_keys(key: str, overrides: Sequence[str], compose: Callable[[list[str]], DictConfig]) -> list[str]:
    """Return the keys of the configuration, composed without the override of `key`.

    If this fails, only the overrides that select groups are used, and if this fails too, no overrides.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException:
        return []
    others = [str(o.input_line) for o in parsed if o.key_or_group != key]
    groups = [o for o in others if "." not in o.partition("=")[0].removeprefix("hydra.") and o[0] not in "+~"]
    for attempt in (others, groups, []):
        try:
            return keys_of(compose(attempt))
        except (*COMPOSITION_ERRORS, ValueError):
            continue
    return []
