"""Signals: loops save their state and stop, a second Ctrl-C stops at once, handlers of other libraries are called."""

import os
import signal

import pytest

from dd_bench.runtime import interruption
from dd_bench.runtime.interruption import Interrupted


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_outside_of_a_loop_stops_at_once(number, code):
    with pytest.raises(Interrupted) as stopped, interruption.handled():
        send(number)
    assert stopped.value.exit_code == code and stopped.value.saved == ""
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "the handlers must be restored"


def test_loop_saves_before_it_stops():
    saved = []
    with pytest.raises(Interrupted, match="step 3"), interruption.handled(), interruption.deferred():
        for step in range(9):
            if step == 3:
                send()
                send()  # SLURM may send it twice
            if interruption.stop_requested():
                saved.append(step)
                interruption.stop(f"step {step}")
    assert saved == [3] and not interruption.stop_requested()


def test_second_ctrl_c_does_not_wait_for_the_end_of_the_step():
    with pytest.raises(Interrupted) as stopped, interruption.handled(), interruption.deferred():
        send(signal.SIGINT)
        assert interruption.stop_requested()
        send(signal.SIGINT)
    assert stopped.value.exit_code == 130


def test_signal_after_the_last_step_is_not_lost():
    reached = []
    with pytest.raises(Interrupted), interruption.handled():
        with interruption.deferred():
            send()
        reached.append("next stage")
    assert not reached


def test_handler_of_another_library_is_called_after_saving():
    """Submitit's handler of SIGUSR2 starts a preempted job again, and the one of SIGTERM does nothing."""
    called = []
    before = [
        signal.signal(n, lambda number, _: called.append(number)) for n in (signal.SIGUSR2, signal.SIGTERM)
    ]
    try:
        with interruption.handled(), interruption.deferred():
            for number in (signal.SIGUSR2, signal.SIGTERM):
                send(number)
                assert interruption.stop_requested() and len(called) < 2
                interruption.stop("the state")  # returns, because the other handler returns
                assert called[-1] == number
    finally:
        for number, handler in zip((signal.SIGUSR2, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)


def test_jobs_in_other_processes_are_stopped_first():
    order = []
    with pytest.raises(Interrupted), interruption.handled(lambda: order.append("jobs")):
        send()
    assert order == ["jobs"]
