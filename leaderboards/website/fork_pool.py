"""Work on what is in memory already, in a process a core."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from dd_bench.runtime.allocator import keep_freed_memory

Piece = Callable[[], None]

_here: Sequence[Piece] = ()


def in_forks(pieces: Sequence[Piece], *, forked: bool) -> None:
    """Calls every piece of work, which leaves its result in files.

    Args:
        pieces: of the work. One sees everything that this process holds, and what it changes of that stays with it.
        forked: in as many processes as this one may use cores, where the system can fork; else one after another. Not
            from a process with threads at work.

    Raises:
        Exception: the first that a piece raises; what was not begun by then is not done.
        OSError: a process was killed.
    """
    global _here
    if not forked or cores() < 2 or "fork" not in multiprocessing.get_all_start_methods():
        for piece in pieces:
            piece()
        return
    _here = pieces  # sent to nobody: a forked process has them
    fork = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(cores(), mp_context=fork, initializer=keep_freed_memory)
    try:
        for _ in pool.map(_one, range(len(pieces))):
            pass
    except BrokenProcessPool as error:
        raise OSError("a process that wrote pages was killed. Is there memory enough?") from error
    finally:
        pool.shutdown(cancel_futures=True)
        _here = ()


def cores() -> int:
    """Returns how many cores this process may use, where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _one(index: int) -> None:
    _here[index]()
