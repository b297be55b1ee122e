"""Stop a run on SIGINT (Ctrl-C) or SIGTERM (sent by SLURM) without losing work.

A loop that can save its state runs inside `deferred`, asks `stop_requested` after each step, saves, and calls `stop`.
Elsewhere, a signal raises `Interrupted` immediately. A second Ctrl-C always does.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal has stopped the run.

    Attributes:
        number: number of the signal.
        saved: the saved state, e.g. "step 57 of 1000 of the loop distill"; "" if the run was stopped immediately.
    """

    def __init__(self, number: int, saved: str = ""):
        super().__init__(number, saved)
        self.number, self.saved = number, saved

    @property
    def exit_code(self) -> int:
        """Exit status of the command: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number


class _State:
    """The pending signal of this process, and the handlers that were installed before those of `handled`."""

    pending: int | None = None
    delivered: int | None = None  # the signal for which `Interrupted` was raised
    depth = 0  # number of active `deferred` contexts
    previous: dict[int, Any] = {}  # noqa: RUF012  the class is its only instance
    on_stop: Callable[[], None] | None = None
    stopped_by: Callable[[], bool] | None = None  # in a worker process
    error: type[Exception] | None = None  # in a worker process


@contextmanager
def handled(on_stop: Callable[[], None] | None = None) -> Iterator[None]:
    """Inside the context, SIGINT and SIGTERM stop the run as this module describes. Only for the main thread.

    SIGUSR1 and SIGUSR2 do the same if they have a Python handler. Submitit requeues a preempted SLURM job in such a
    handler. If another library has installed a handler of a signal, this handler is called after the state was saved,
    and `Interrupted` is not raised.

    Args:
        on_stop: called before `Interrupted` is raised outside of `deferred`, e.g. to stop jobs in other processes.
    """
    if _State.previous or threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers: list[int] = [
        *_SIGNALS,
        *(n for n in (signal.SIGUSR1, signal.SIGUSR2) if callable(signal.getsignal(n))),
    ]
    _State.previous = {n: signal.getsignal(n) for n in numbers}
    _State.pending, _State.delivered, _State.on_stop = None, None, on_stop
    for number in numbers:
        signal.signal(number, _handle)
    try:
        yield
    finally:
        previous, _State.previous = _State.previous, {}
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """Inside the context, the first signal only makes `stop_requested` return True."""
    _State.depth += 1
    try:
        yield
    finally:
        _State.depth -= 1
    if _State.depth == 0 and _State.pending is not None:  # it came after the last call of `stop_requested`
        _deliver(_State.pending, "")


def is_deferred() -> bool:
    """Return whether this code runs in a loop that saves its state before it stops."""
    return _State.depth > 0


def stop_requested() -> bool:
    """Return whether the run should save its state and call `stop`."""
    return _State.pending is not None or (_State.stopped_by is not None and _State.stopped_by())


def delivered() -> int | None:
    """Return the signal for which `Interrupted` was raised, or None. The interrupted code may raise another error."""
    return _State.delivered


def stop(saved: str) -> None:
    """Stop the run after its state was saved. `saved` describes the state, see `Interrupted.saved`.

    Returns without an exception if another library handles the signal and lets the run continue.

    Raises:
        Interrupted: the run stops.
    """
    if _State.error is not None:
        raise _State.error(saved)
    if _State.pending is not None:
        _deliver(_State.pending, saved)


def follow(stopped: Callable[[], bool], error: type[Exception]) -> None:
    """Let the parent of this worker process stop it: if `stopped()` is true, a stop is requested.

    `stop` then raises `error`. SIGINT is ignored, because a terminal sends it to all processes of a run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _State.stopped_by, _State.error = stopped, error


def _handle(number: int, frame: FrameType | None) -> None:
    again = _State.pending is not None
    if again and number != signal.SIGINT:
        return  # SLURM and terminals may send several signals
    _State.pending = number
    if _State.depth and not again:
        sys.stderr.write(
            f"\nreceived {signal.Signals(number).name}: the run stops after the current step and saves its state. "
            "Press Ctrl-C to stop without saving\n"
        )
        return
    try:
        if _State.on_stop is not None and not again and not _is_foreign(number):
            _State.on_stop()
    finally:
        _deliver(number, "")


def _deliver(number: int, saved: str) -> None:
    _State.pending = None
    if _is_foreign(number):
        _State.previous[number](number, None)
        return
    _State.delivered = number
    raise Interrupted(number, saved)


def _is_foreign(number: int) -> bool:
    """Return whether another library has installed a handler of the signal."""
    previous = _State.previous.get(number)
    return callable(previous) and previous is not signal.default_int_handler
