"""Read YAML files of `published/`, and check their contents against a type."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from dd_bench.runtime import untrusted

T = TypeVar("T")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # some builds of PyYAML do not have the faster one


def read_yaml(path: Path, contents: type[T], name: str) -> T:
    """Return the contents of a file as a value of the type `contents`. `name` is used in the message of an error.

    Raises:
        ValueError: the file is not valid. The message names the faulty fields.
    """
    try:
        return TypeAdapter(contents).validate_python(yaml.load(path.read_text(), _LOADER))
    except ValidationError as error:
        raise ValueError(f"{path} is not a valid file of {name}: {untrusted.problems(error)}") from error
