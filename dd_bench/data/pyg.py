"""PyG (torch_geometric), where it is installed: networks, generators and downloads of graphs come from it."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any


def import_pyg(part: str) -> Any:
    """Returns the module `torch_geometric.<part>`.

    Raises:
        ImportError: PyG is not installed; the message says how.
    """
    try:
        with warnings.catch_warnings():  # it scripts a function on import, which torch calls deprecated
            warnings.simplefilter("ignore", FutureWarning)
            return import_module(f"torch_geometric.{part}")
    except ImportError as error:
        raise ImportError("graphs need PyG. Use: pip install 'dd-bench[graph]'") from error
