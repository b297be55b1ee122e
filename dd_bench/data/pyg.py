"""Lazy import of PyG (torch_geometric), which provides graph networks, graph generators and downloads."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any


def import_pyg(part: str) -> Any:
    """Return the module `torch_geometric.<part>`.

    Raises:
        ImportError: PyG is not installed. The message contains the command that installs it.
    """
    try:
        with warnings.catch_warnings():  # on import PyG uses TorchScript, which is deprecated
            warnings.simplefilter("ignore", FutureWarning)
            return import_module(f"torch_geometric.{part}")
    except ImportError as error:
        raise ImportError("graph datasets require PyG. Use: pip install 'dd-bench[graph]'") from error
