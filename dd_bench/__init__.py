"""dd_bench: a benchmark suite for dataset distillation.

The functions are defined in `dd_bench.python_api`, which is imported on first use. So `import dd_bench` does not import
torch, which the leaderboards do not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dd_bench.python_api import (
        distill,
        evaluate,
        from_folder,
        from_tensors,
        list_datasets,
        list_evaluators,
        list_experiments,
        list_methods,
        list_models,
        list_protocols,
        load,
        real_set,
        run,
        tune,
    )

__version__ = "0.2.0"

NUMBERS_VERSION = 1
"""Increased with every change of the code that changes results (CHANGELOG, "Changes numbers").

It is part of every content key, so old results are never mistaken for new ones.
"""


__all__ = [
    "distill",
    "evaluate",
    "from_folder",
    "from_tensors",
    "list_datasets",
    "list_evaluators",
    "list_experiments",
    "list_methods",
    "list_models",
    "list_protocols",
    "load",
    "real_set",
    "run",
    "tune",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dd_bench import python_api

    return getattr(python_api, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
