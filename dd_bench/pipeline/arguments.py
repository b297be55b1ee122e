"""Checks configured values against the annotations of the constructor they are for, before anything is built."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError


def check_arguments(target: Any, values: dict[str, Any], group: str) -> None:
    """Checks `values` against the type hints of a function, or of a class and its bases.

    Raises:
        ValueError: a value is of another type than its parameter; names the key, what came and what was wanted.
    """
    wanted = {name: hint for callee in _callees(target) for name, hint in _hints(callee).items()}
    for name, value in values.items():
        if name not in wanted:
            continue  # an unknown key is the constructor's to refuse, by its name
        try:
            TypeAdapter(wanted[name]).validate_python(value)
        except PydanticSchemaGenerationError:
            continue  # an object of ours, which is still a configuration here
        except ValidationError as error:
            raise ValueError(f"{group}.{name}={value!r}: {error.errors()[0]['msg']}") from None


def _callees(target: Any) -> Iterator[Any]:
    """Yields what takes the arguments, bases first: a class passes on what it does not name itself."""
    if not inspect.isclass(target):
        yield target
        return
    for kind in reversed(target.__mro__):
        if "__init__" in vars(kind) and kind is not object:
            yield vars(kind)["__init__"]


def _hints(callee: Any) -> dict[str, Any]:
    try:
        return get_type_hints(callee)
    except (NameError, TypeError):  # an annotation that only a type checker can see
        return {}
