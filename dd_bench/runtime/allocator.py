"""Configure glibc to retain freed memory. By default it returns large blocks to the system after each training step.

Measured on a 2-core CPU with ConvNet-3, this gives 1.5 to 1.8 times the images per second
(`benchmarks/training_loop.py`).
"""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # <malloc.h>
_NEVER = -1


def keep_freed_memory() -> bool:
    """Make glibc's malloc allocate every block from the heap and never trim it. Return whether this succeeded.

    On success, the process retains its peak memory until it ends. The peak does not grow with the length of a run. With
    another libc, or if the user has set a `MALLOC_*` environment variable, nothing is changed and the result is False.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  another libc has no such symbol
    except (OSError, AttributeError, TypeError):
        return False
    # mallopt rejects an mmap threshold above 32 MiB, so mmap is disabled completely.
    # The threshold of trimming is an int, so its largest value would return free memory above 2 GiB at each step.
    return bool(libc.mallopt(_M_MMAP_MAX, 0)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, _NEVER))
