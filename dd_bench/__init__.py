"""dd_bench: dataset distillation, measured the same way for everybody.

Importing this package loads no torch, so that a leaderboard renders without it.
"""

__version__ = "0.1.0"

NUMBERS_VERSION = 1
"""Raised whenever a change of the code changes results (CHANGELOG, "Changes numbers").

It is part of every content key, so old results are never mistaken for new ones.
"""
