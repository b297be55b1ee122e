"""Read pickles of arrays without executing code: an unpickler that refuses all classes but a few."""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that creates NumPy arrays, SciPy CSR matrices, dicts and lists, and refuses everything else."""

    ALLOWED: Mapping[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
        ("scipy.sparse.csr", "csr_matrix"): scipy.sparse.csr_matrix,
        ("collections", "defaultdict"): defaultdict,
        ("__builtin__", "list"): list,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed class.

        Raises:
            UnpicklingError: the pickle contains another class or function.
        """
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it contains {module}.{name}, which a dataset must not contain")
        return self.ALLOWED[module, name]


def load_arrays(path: Path) -> Any:
    """Read a pickle of arrays without executing code from it, see `ArrayUnpickler`.

    Raises:
        ValueError: the file is damaged, or contains other objects.
    """
    try:
        with path.open("rb") as file:
            return ArrayUnpickler(file, encoding="latin1").load()
    except (
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        TypeError,
        ValueError,
        IndexError,
        KeyError,
    ) as error:
        raise ValueError(f"{path} cannot be read: {error}. Download it again") from error
