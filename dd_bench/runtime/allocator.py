"""Keeps freed memory in the process: glibc returns large blocks after each training step and faults them in again.

Measured on a 2-core CPU with ConvNet-3: 1.5 to 1.8 times the images per second (`benchmarks/training_loop.py`).
"""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # <malloc.h>
_INT_MAX = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tells glibc's malloc to serve every block from the heap and never to trim it; says whether it did.

    Returns False, and changes nothing, on another libc, or where the user already set a `MALLOC_*` variable.
    The process then holds its peak memory until it ends, which does not grow with the length of a run.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  another libc has no such symbol
    except (OSError, AttributeError, TypeError):
        return False
    # A threshold above 32 MiB is refused by mallopt, so mmap is switched off altogether.
    return bool(libc.mallopt(_M_MMAP_MAX, 0)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, _INT_MAX))
