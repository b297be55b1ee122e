"""Run jobs in parallel processes of one thread each. For small networks, this is faster than several threads.

Each process has the flags of torch (see `torch_flags`) of the process that started it.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch
import torch.multiprocessing

from dd_bench.runtime import interruption, torch_flags
from dd_bench.runtime.allocator import keep_freed_memory

Shared = TypeVar("Shared")
Job = TypeVar("Job")
Result = TypeVar("Result")
Tick = Callable[[], None]


def no_tick() -> None:
    """Report no progress."""


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
        Exception: the exception of a job. The other jobs stop like after a signal.
        Interrupted: a signal has stopped the run. Running jobs stop after they have saved their state, or at their next
            `tick` if they save none.
    """
    context = _context(work.__module__)
    ticks, stopped = context.Value("i", 0), context.Value("b", 0)
    with (
        interruption.deferred(),
        ProcessPoolExecutor(
            workers,
            mp_context=context,
            initializer=_start_worker,
            initargs=(work, shared, ticks, stopped, torch_flags.current()),
        ) as pool,
    ):
        pending = {pool.submit(_run_job, job): job for job in jobs}
        try:
            while pending:
                done, _ = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                on_tick(ticks.value)
                if interruption.stop_requested():
                    stopped.value = 1
                    done = {f for f in wait(pending).done if not _was_stopped(f)}
                # successful jobs first, so that their results are not lost when a failed job raises
                for future in sorted(done, key=lambda f: f.exception() is not None):
                    yield pending.pop(future), future.result()
                if stopped.value:
                    interruption.stop(f"{len(jobs) - len(pending)} of {len(jobs)} networks")
                    break  # the run goes on, see `interruption.stop`
        finally:
            stopped.value = 1  # running jobs stop at their next tick
            for future in pending:
                future.cancel()
    if pending:
        yield from run_in_processes(work, shared, list(pending.values()), workers, on_tick)


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
    """The run was interrupted, or another job has failed."""


def _was_stopped(job: Future[Any]) -> bool:
    return isinstance(job.exception(), _Stopped | BrokenProcessPool)


_WORKER: tuple[Any, Any, Any, Any] | None = None  # work, shared, ticks, stopped: see `_start_worker`


def _start_worker(work: Any, shared: Any, ticks: Any, stopped: Any, flags: tuple[bool, bool]) -> None:
    global _WORKER
    _WORKER = work, shared, ticks, stopped
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    interruption.follow(lambda: bool(stopped.value), _Stopped)
    signal.signal(signal.SIGTERM, _stop_worker)
    keep_freed_memory()
    torch.set_num_threads(1)
    torch_flags.set_flags(*flags)
    logging.getLogger("torch").setLevel(logging.ERROR)


def _exit_with_parent() -> None:
    """Exit when the parent process ends, because a killed parent cannot stop its workers."""
    parent = torch.multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


_BUSY = threading.Lock()  # held while this worker runs a job
_IDLE_SECONDS = 5.0  # a terminated worker exits when it has been without a job for so long


def _stop_worker(*_: Any) -> None:
    """Handle SIGTERM: let a running job save its state, as SLURM sends the signal to all processes of a run."""
    assert _WORKER is not None
    _WORKER[3].value = 1
    threading.Thread(target=_exit_when_idle, daemon=True).start()


def _exit_when_idle() -> None:
    with _BUSY:
        pass
    time.sleep(_IDLE_SECONDS)
    os._exit(128 + signal.SIGTERM)


def _run_job(job: Any) -> Any:
    with _BUSY:
        return _work_on(job)


def _work_on(job: Any) -> Any:
    assert _WORKER is not None
    work, shared, ticks, stopped = _WORKER

    def tick() -> None:
        if stopped.value and not interruption.is_deferred():
            raise _Stopped
        with ticks.get_lock():
            ticks.value += 1

    if stopped.value:  # the job started before it could be cancelled
        raise _Stopped
    return work(shared, job, tick)
