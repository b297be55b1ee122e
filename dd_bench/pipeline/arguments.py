"""Check configured values against a constructor's type hints, before anything is built."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from dd_bench.runtime.suggestions import unknown_key


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
            return [name for name in names if name not in ("self", "device")]
    return None


def _hints(function: Any) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except (NameError, TypeError):  # an annotation that is imported under TYPE_CHECKING only
        return {}
