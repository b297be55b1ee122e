"""Leaderboards: tables and a website from `entries/` and `published/`, deterministic and without torch.

The Python function is `dd_bench.leaderboards.paper_table`:

    table = paper_table("runs/records", methods=["random", "dm"])
    table.frame()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dd_bench.leaderboards.render.paper_table import PaperTable, paper_table

__all__ = ["PaperTable", "paper_table"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dd_bench.leaderboards.render import paper_table as module

    return getattr(module, name)
