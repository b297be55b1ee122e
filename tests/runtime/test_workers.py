"""Worker processes: results, errors, and termination with the parent process."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from dd_bench.runtime import interruption, workers
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.runtime.torch_flags import read_flags, set_flags
from dd_bench.runtime.workers import run_in_processes

JOBS = """
import os, time
from pathlib import Path
import torch
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.runtime.torch_flags import read_flags

def square(shared, job, tick):
    for _ in range(job):
        tick()
    offset, table = shared["offset"], shared["table"]
    return job**2 + offset, table[job] * 2, (os.getpid(), torch.get_num_threads(), table.is_shared())

def flags(shared, job, tick):
    return read_flags()

def second_fails(folder, job, tick):
    (Path(folder) / f"{job}").touch()
    (Path(folder) / f"{os.getpid()}.worker").touch()
    if job == 1:
        raise Diverged("expert 1 is not finite. Use a smaller method.experts.recipe.lr")
    time.sleep(0.05)

def waits(folder, job, tick):
    (Path(folder) / f"{os.getpid()}.worker").touch()
    time.sleep(600)
"""
PARENT = """
import sys
sys.path.insert(0, sys.argv[1])
from jobs_of_a_test import waits
from dd_bench.runtime.workers import run_in_processes
if __name__ == "__main__":
    list(run_in_processes(waits, sys.argv[1], range(4), 2))
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """A module that worker processes can import."""
    (tmp_path / "jobs_of_a_test.py").write_text(JOBS)
    monkeypatch.syspath_prepend(tmp_path)
    import jobs_of_a_test

    yield jobs_of_a_test
    del sys.modules["jobs_of_a_test"]


def test_results_of_all_jobs(jobs):
    """Checks the values, shared tensors, ticks, and that each process has one thread."""
    table = torch.randn(9, 1000, dtype=torch.float64).to(torch.bfloat16)
    copy, ticks = table.clone(), []
    work = [7, 3, 8, 0, 5, 1]
    results = dict(run_in_processes(jobs.square, {"offset": 0.5, "table": table}, work, 2, ticks.append))
    assert sorted(results) == sorted(work)
    for job, (value, row, _) in results.items():
        assert value == job**2 + 0.5
        assert row.dtype == torch.bfloat16 and torch.equal(row, copy[job] * 2)
    pids, threads, shared = zip(*(info for _, _, info in results.values()), strict=True)
    assert os.getpid() not in pids and len(set(pids)) <= 2
    assert set(threads) == {1} and set(shared) == {True}, "the table is in shared memory"
    assert torch.equal(table, copy)
    assert ticks == sorted(ticks) and ticks[-1] == sum(work), "no tick is lost"
    assert not any(alive(pid) for pid in pids), "all workers have ended"


def test_workers_have_the_flags_of_their_parent(jobs):
    """Torch's defaults, which a new process has, allow TF32 in convolutions but not in matrix products."""
    for tf32 in (True, False):
        set_flags(tf32, deterministic=False)
        ((_, flags),) = run_in_processes(jobs.flags, None, [0], 1)
        assert flags == read_flags() and (flags["backends.cuda.matmul.fp32_precision"] == "tf32") is tf32


@pytest.mark.parametrize("saves", [True, False])
def test_tick_does_not_stop_a_job_that_saves_its_state(monkeypatch, saves):
    """A loop that saves its state stops itself after it was saved."""

    def job(shared, job, tick):
        with interruption.deferred() if saves else nullcontext():
            stopped.value = 1
            tick()
        return "saved"

    ticks, stopped = (multiprocessing.Value("i", 0) for _ in range(2))
    monkeypatch.setattr(workers, "_WORKER", (job, None, ticks, stopped))
    with nullcontext() if saves else pytest.raises(workers._Stopped):
        assert workers._run_job(0) == "saved"
    assert ticks.value == saves


def test_error_stops_the_other_jobs(jobs, tmp_path):
    """The exception is raised unchanged, and pending jobs are not started."""
    results = []
    with pytest.raises(
        Diverged, match=r"^expert 1 is not finite\. Use a smaller method\.experts\.recipe\.lr$"
    ):
        for job, result in run_in_processes(jobs.second_fails, str(tmp_path), range(200), 1):
            results.append((job, result))
    assert results == [(0, None)]
    started = [p for p in tmp_path.iterdir() if p.name.isdigit()]
    assert 2 <= len(started) < 10, "only the jobs in the queue of the pool were started"
    workers = [int(p.stem) for p in tmp_path.glob("*.worker")]
    assert len(workers) == 1 and not alive(workers[0])


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_workers_exit_with_a_killed_parent(jobs, tmp_path, signum):
    """Workers in the middle of a job exit without a message from the parent."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)])
    try:
        wait_until(lambda: len(list(tmp_path.glob("*.worker"))) == 2)
        workers = [int(p.stem) for p in tmp_path.glob("*.worker")]
        assert all(alive(pid) for pid in workers)
    finally:
        parent.send_signal(signum)
        parent.wait()
    wait_until(lambda: not any(alive(pid) for pid in workers))


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.02)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
