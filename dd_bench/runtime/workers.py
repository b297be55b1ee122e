"""Run jobs in parallel processes of one thread each. For small networks, this is faster than several threads."""

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
_POLL_SECONDS = 0.5  # interval between two reads of the workers' progress
PRELOAD = ("torch._dynamo",)  # imported by torch.optim
"""Modules that all workers need in addition to the module of their work. Importing them takes seconds."""


def run_in_processes(
    work: Callable[[Shared, Job, Tick], Result],
    shared: Shared,
    jobs: Sequence[Job],
    workers: int,
    on_tick: Callable[[int], None] = lambda ticks: None,
) -> Iterator[tuple[Job, Result]]:
    """Yield `(job, work(shared, job, tick))` in the order in which the jobs finish.

    Args:
        work: a picklable function, e.g. one defined at module level. It can call `tick()` to report progress.
        shared: data needed by all jobs. It is sent once to each process, with its tensors in shared memory.
        jobs: arguments of the jobs.
        workers: number of processes.
        on_tick: called about twice a second with the total number of calls of `tick` by all workers.

    Raises:
        Exception: the exception of a job. The other jobs stop at their next `tick`.
    """
    context = _context(work.__module__)
    ticks, stopped = context.Value("i", 0), context.Value("b", 0)
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(work, shared, ticks, stopped)
    ) as pool:
        pending = {pool.submit(_run_job, job): job for job in jobs}
        try:
            while pending:
                done, _ = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                on_tick(ticks.value)
                # successful jobs first, so that their results are not lost when a failed job raises
                for future in sorted(done, key=lambda f: f.exception() is not None):
                    yield pending.pop(future), future.result()
        finally:
            stopped.value = 1  # running jobs stop at their next tick
            for future in pending:
                future.cancel()


def _context(module: str) -> Any:
    """Return the multiprocessing context of the workers.

    They are forked from a server process that has only imported the modules they need. Forking this process could hang,
    because torch has started threads in it, and CUDA cannot be used after a fork. Without a fork server (on Windows),
    each worker is spawned and imports the modules itself.
    """
    if "forkserver" not in torch.multiprocessing.get_all_start_methods():
        return torch.multiprocessing.get_context("spawn")
    context = torch.multiprocessing.get_context("forkserver")
    # only the first call has an effect, because the server persists
    context.set_forkserver_preload([*PRELOAD, module])
    return context


class _Stopped(Exception):
    """Another job has failed."""


_WORKER: tuple[Any, Any, Any, Any] | None = None  # arguments of `_start_worker`


def _start_worker(work: Any, shared: Any, ticks: Any, stopped: Any) -> None:
    global _WORKER
    _WORKER = work, shared, ticks, stopped
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    keep_freed_memory()
    torch.set_num_threads(1)
    logging.getLogger("torch").setLevel(logging.ERROR)


def _exit_with_parent() -> None:
    """Exit when the parent process ends, because a killed parent cannot stop its workers."""
    parent = torch.multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_job(job: Any) -> Any:
    assert _WORKER is not None
    work, shared, ticks, stopped = _WORKER

    def tick() -> None:
        if stopped.value:
            raise _Stopped
        with ticks.get_lock():
            ticks.value += 1

    if stopped.value:  # the job started before it could be cancelled
        raise _Stopped
    return work(shared, job, tick)
