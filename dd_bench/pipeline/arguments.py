"""Check configured values against a constructor's type hints, before anything is built."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_type_hints

from hydra.utils import get_object
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from dd_bench.models.network import Network
from dd_bench.runtime.suggestions import MissingKeyError, unknown_key

SUPPLIED = ("self", "device")
"""Parameters of constructors that have no configuration key."""


def check_nodes(values: Any, path: str) -> None:
    """Check every node of a configuration that has a `_target_`.

    Args:
        values: the resolved configuration of a group, or a part of it.
        path: its dotted key.

    Raises:
        MissingKeyError: an argument of a function that is called later (`_partial_: true`) is missing.
        ValueError: see `check_arguments`.
    """
    children = (
        values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    )
    if isinstance(values, dict) and "_target_" in values:
        target = get_object(values["_target_"])
        keys = {str(k): v for k, v in values.items() if not str(k).startswith("_")}
        check_arguments(target, keys, path)
        if values.get("_partial_") and _is_direct(target):
            missing = [name for name in required_arguments(target) if name not in keys]
            if missing:
                raise MissingKeyError([f"{path}.{name}" for name in missing])
    for key, value in children:
        check_nodes(value, f"{path}.{key}")


def required_arguments(target: Any) -> list[str]:
    """Return the parameters of a function or class that have no default and are set by configuration keys."""
    parameters = list(inspect.signature(target).parameters.values())
    if inspect.isclass(target) and issubclass(target, Network):
        parameters = parameters[2:]  # the shape of an input, and the number of classes
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return [p.name for p in named if p.default is p.empty and p.name not in SUPPLIED]


def missing_arguments(error: BaseException | None) -> list[str]:
    """Return the names in Python's error for missing arguments of a call, or an empty list for another error."""
    found = re.search(r"missing \d+ required (?:keyword-only|positional) arguments?: (.*)", str(error))
    return re.findall(r"'(\w+)'", found[1]) if found and isinstance(error, TypeError) else []


def _is_direct(target: Any) -> bool:
    """Return whether all arguments but the input shape, the number of classes and the device are configured.

    This holds for a `Network`, and for the loader of a dataset, which takes `device`. `ModuleConstructor` fills in
    arguments of other modules.
    """
    if inspect.isclass(target) and issubclass(target, Network):
        return True
    return "device" in inspect.signature(target).parameters


def check_arguments(target: Any, values: dict[str, Any], group: str) -> None:
    """Check `values` against the type hints of a function, or of a class and its bases.

    Raises:
        ValueError: a key is not a parameter, or a value does not have the type of its parameter. The message gives the
            similar parameters, or the key, the value and the expected type.
    """
    functions = list(_constructors(target))
    names = _keywords(functions)
    for name in values:
        if names is not None and name not in names:
            raise ValueError(unknown_key(f"{group}.{name}", [f"{group}.{n}" for n in names]))
    expected = {name: hint for function in functions for name, hint in _hints(function).items()}
    for name, value in values.items():
        if name not in expected:
            continue  # a keyword of the constructor's **kwargs
        try:
            TypeAdapter(expected[name]).validate_python(value)
        except PydanticSchemaGenerationError:
            continue  # the parameter is an object of dd_bench, and the value is the configuration of this object
        except ValidationError as error:
            raise ValueError(f"{group}.{name}={value!r}: {error.errors()[0]['msg']}") from None


def _constructors(target: Any) -> Iterator[Any]:
    """Yield the functions that receive the arguments; for a class, each `__init__` of it and its bases, bases first."""
    if not inspect.isclass(target):
        yield target
        return
    for cls in reversed(target.__mro__):
        if "__init__" in vars(cls) and cls is not object:
            yield vars(cls)["__init__"]


def _keywords(functions: list[Any]) -> list[str] | None:
    """Return the names of all arguments; None if a function without a base passes its `**kwargs` elsewhere."""
    names: list[str] = []
    for function in reversed(functions):  # from the class to its bases
        parameters = inspect.signature(function).parameters.values()
        kinds = {p.kind for p in parameters}
        names += [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            return [name for name in names if name not in SUPPLIED]
    return None if functions else []


def _hints(function: Any) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except (NameError, TypeError):  # an annotation that is imported under TYPE_CHECKING only
        return {}
