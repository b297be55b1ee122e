"""Run tasks on data that is already in memory, in one forked process per core."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from dd_bench.runtime.allocator import keep_freed_memory

Task = Callable[[], None]

_tasks: Sequence[Task] = ()


def run_forked(tasks: Sequence[Task], *, forked: bool) -> None:
    """Call every task. Tasks write their results to files.

    Args:
        tasks: functions without arguments. A forked task can read the memory of this process. Its changes to this
            memory are lost.
        forked: use one process per available core, if the system can fork; otherwise call one task after another. This
            process must not have running threads.

    Raises:
        Exception: the first exception of a task. Tasks that have not started by then are skipped.
        OSError: a process was killed.
    """
    global _tasks
    if not forked or available_cores() < 2 or "fork" not in multiprocessing.get_all_start_methods():
        for task in tasks:
            task()
        return
    _tasks = tasks  # inherited by the forked processes, so tasks need not be pickled
    fork = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(available_cores(), mp_context=fork, initializer=keep_freed_memory)
    try:
        for _ in pool.map(_run, range(len(tasks))):
            pass
    except BrokenProcessPool as error:
        raise OSError(
            "a process that wrote pages was killed, probably because the memory was full. Free memory and build again"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        _tasks = ()


def available_cores() -> int:
    """Return the number of cores that this process may use; 1 if the system does not report it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _run(index: int) -> None:
    _tasks[index]()
