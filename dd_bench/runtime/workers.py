"""One process a core: small networks scale better over processes than over threads."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import Any, TypeVar

import torch
import torch.multiprocessing

from dd_bench.runtime.allocator import keep_freed_memory

Shared = TypeVar("Shared")
Job = TypeVar("Job")
Result = TypeVar("Result")
Tick = Callable[[], None]
_LOOK_EVERY = 0.5  # seconds between two looks at the workers' progress
PRELOAD = ("torch._dynamo",)  # torch.optim imports it
"""Modules that all workers need beside that of their work; importing them takes seconds."""


def run_in_processes(
    work: Callable[[Shared, Job, Tick], Result],
    shared: Shared,
    jobs: Sequence[Job],
    workers: int,
    on_tick: Callable[[int], None] = lambda ticks: None,
) -> Iterator[tuple[Job, Result]]:
    """Yields `(job, work(shared, job, tick))` as the jobs finish, in worker processes of one thread each.

    Args:
        work: a function of a module, so that it can be named to another process.
        shared: what all jobs need; sent once to each process, its tensors in shared memory.
        jobs: the pieces of work.
        workers: number of processes.
        on_tick: told how often the workers have called `tick`, once or twice a second.

    Raises:
        Exception: what a job raises; the others end at their next `tick`.
    """
    context = _context(work.__module__)
    ticks, stopped = context.Value("i", 0), context.Value("b", 0)
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(work, shared, ticks, stopped)
    ) as pool:
        waiting = {pool.submit(_work, job): job for job in jobs}
        try:
            while waiting:
                done, _ = wait(waiting, timeout=_LOOK_EVERY, return_when=FIRST_COMPLETED)
                on_tick(ticks.value)
                for future in sorted(
                    done, key=lambda f: f.exception() is not None
                ):  # what is done is not lost
                    yield waiting.pop(future), future.result()
        finally:
            stopped.value = 1  # jobs that run end at their next tick
            for future in waiting:
                future.cancel()


def _context(module: str) -> Any:
    """Returns the way to start workers: forked from a server that has imported the modules they need, and nothing else.

    Forking this process could hang, because torch has started threads in it, and CUDA cannot be used after a fork.
    Without a server (on Windows) each worker imports on its own.
    """
    if "forkserver" not in torch.multiprocessing.get_all_start_methods():
        return torch.multiprocessing.get_context("spawn")
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOAD, module])  # of the first call: the server stays
    return context


class _Stopped(Exception):
    """Another job failed."""


_HERE: tuple[Any, Any, Any, Any] | None = None


def _start_worker(work: Any, shared: Any, ticks: Any, stopped: Any) -> None:
    global _HERE
    _HERE = work, shared, ticks, stopped
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    torch.set_num_threads(1)
    logging.getLogger("torch").setLevel(logging.ERROR)


def _end_with_parent() -> None:
    """A parent that is killed cannot stop its workers, and they would wait for work for ever."""
    parent = torch.multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(job: Any) -> Any:
    assert _HERE is not None
    work, shared, ticks, stopped = _HERE

    def tick() -> None:
        if stopped.value:
            raise _Stopped
        with ticks.get_lock():
            ticks.value += 1

    if stopped.value:  # was fetched before it could be cancelled
        raise _Stopped

    return work(shared, job, tick)
