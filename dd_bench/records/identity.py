"""What a method, network, dataset or evaluator is: its configuration name and its hyper-parameters.

The Python path of a class is no part of it, so that a file can be moved and renamed without orphaning a cache, a set
or an entry. A plug-in from another package has no version of ours, and is identified by its source as well.
"""

from __future__ import annotations

import hashlib
import inspect
from typing import Any


def foreign_source(target: Any) -> dict[str, str]:
    """Returns the sha256 of the module of a class or function of another package, by its name; empty for ours."""
    module = inspect.getmodule(target)
    if module is None or module.__name__.startswith("dd_bench."):
        return {}
    try:
        source = inspect.getsource(module).encode()
    except (OSError, TypeError):  # typed into an interpreter
        return {}
    return {f"source of {target.__name__}": hashlib.sha256(source).hexdigest()}
