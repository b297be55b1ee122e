"""Apply a function to chunks of a list in threads, with bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@cache
def num_threads() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def pool() -> ThreadPoolExecutor:
    """Return the threads that read and decode images. Pillow and hashlib release the GIL while they work."""
    return ThreadPoolExecutor(num_threads(), thread_name_prefix="images")


def in_chunks(work: Callable[[Sequence[Item]], Result], items: Sequence[Item], size: int) -> Iterator[Result]:
    """Yield `work(chunk)` for consecutive chunks of `size` items, in order.

    One task for each chunk costs less than one for each item. Only a few chunks are computed in advance, so that few
    results are in memory.
    """
    queue: deque[Future[Result]] = deque()
    for start in range(0, len(items), size):
        queue.append(pool().submit(work, items[start : start + size]))
        if len(queue) > 2 * num_threads():
            yield queue.popleft().result()
    while queue:
        yield queue.popleft().result()
