"""Check what the card of a set states against its method: the kind of set, how samples are decoded, and `whole`.

A card can come from an untrusted source. If only the card was read, a card of any method could state that each stored
sample is decoded to many training samples, or that the set is a whole training set, which has no IPC. The parameters of
a shipped method are those of its YAML file, and the kinds of its sets are `Method.kinds`. Of a method of another
package, only the values in the card are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import get_class

from dd_bench.records.config_diff import CHOICE, shipped_config, shipped_target

COMPENSATORS = "compensators"


_PLAIN = ("images", "codes", "graphs", "nodes")
"""Kinds whose training samples are the stored samples, except for the parameters in `decoding`. They are not checked,
because the check imports the method."""


def _method_class(method: str) -> Any:
    return get_class(str(shipped_target("method", method)))


def is_shipped(method: str) -> bool:
    """Return whether a method is part of dd_bench."""
    return bool(shipped_config("method", method))


def decodes(decoding: Mapping[str, Any]) -> list[str]:
    """Return the parameters in `SyntheticSet.decoding()` that change what networks are trained on."""
    return [
        name for name, value in decoding.items() if type(value) not in (int, str) or value not in (1, "none")
    ]


def check_method(
    method: str, config: Mapping[str, Any], *, kind: str, whole: bool, decoding: Mapping[str, Any]
) -> None:
    """Check that a method can return a set with these properties.

    Args:
        method: name of the method in the card.
        config: the configuration in the card. The values of the method are in `method`, or in `released` for imported
            sets.
        kind: kind of the set.
        whole: whether the set is the whole training set.
        decoding: `SyntheticSet.decoding()`, e.g. `{"factor": 2, "canvas": 1}`.

    Raises:
        ValueError: the method in the configuration has another name; the method cannot return sets of this kind, or
            whole training sets; or a value of `decoding` is not that of the method.
    """
    values = config.get("method")
    name = values.get(CHOICE, method) if isinstance(values, Mapping) else method
    if name != method:
        raise ValueError(f"method must be {name!r} as in the configuration in its card, got {method!r}")
    shipped = is_shipped(method)
    if whole and not (shipped and isinstance(values, Mapping) and _method_class(method).whole):
        raise ValueError(
            f"a set of the method {method!r} is not the whole training set, so its card must not have whole=true"
        )
    if shipped and kind not in _PLAIN and kind not in _method_class(method).kinds:
        raise ValueError(
            f"the method {method!r} returns sets of kind {' or '.join(_method_class(method).kinds)}, got kind {kind!r}"
        )
    for parameter in decodes(decoding):
        if parameter == COMPENSATORS:
            _check_compensators(decoding[parameter], config, shipped)
        else:
            _check_parameter(parameter, decoding[parameter], method, config)


def _check_parameter(name: str, value: Any, method: str, config: Mapping[str, Any]) -> None:
    """Check that a value is that of the parameter `name` of the method."""
    part = "method" if "method" in config else "released"
    stated = config.get(part)
    if is_shipped(method) and name not in shipped_config("method", method):
        raise ValueError(
            f"{name} must be 1 because the method {method!r} has no parameter method.{name}, got {value!r}"
        )
    expected = stated.get(name, 1) if isinstance(stated, Mapping) else 1
    if value != expected or type(value) is not type(expected) or type(value) not in (int, str):
        raise ValueError(
            f"{name} must be {expected!r} as in {part}.{name} of the configuration in its card, got {value!r}"
        )


def _check_compensators(value: Any, config: Mapping[str, Any], shipped: bool) -> None:
    """Check that a shipped method has one compensator per teacher. They count as images of the IPC in any case."""
    teachers = config.get("teachers")
    expected = len(teachers) if isinstance(teachers, Mapping) else 0
    if shipped and "method" in config and value != expected:
        raise ValueError(
            f"each natural set must have {expected} compensators, one for each of the teachers in the configuration "
            f"in its card, got {value!r}"
        )
