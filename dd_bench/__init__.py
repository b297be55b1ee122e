"""dd_bench: dataset distillation, measured the same way for everybody.

Importing this package loads no torch, so that a leaderboard renders without it.
"""

__version__ = "0.1.0"

NUMBERS_VERSION = 1
"""Raised whenever a change of the code changes results (CHANGELOG, "Changes numbers").

It is part of every content key, so old results are never mistaken for new ones.
"""


def __getattr__(name: str) -> object:
    """`dd_bench.load` and `dd_bench.tensor_dataset`, which load torch, are imported when they are asked for."""
    if name == "load":
        from dd_bench.hub.hub import load

        return load
    if name == "tensor_dataset":
        from dd_bench.hub.export import tensor_dataset

        return tensor_dataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
