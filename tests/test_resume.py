"""kill -9, for real: a run that goes on ends with the bytes of one that was never interrupted."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dd_bench import examination
from dd_bench.journal import Journal
from dd_bench.record import load_record

DM = [
    "method=dm",
    "method.iterations=250",
    "method.batch_real=8",
    "model.width=8",
    "ipc=1",
    "protocol.recipe.epochs=60",
    "evaluator.num_networks=8",
    "runtime=one_thread",
    "runtime.precision=fp32",
    "runtime.compile=never",
    "checkpoint_seconds=0",
    "log_every=1",
]


def wait_until(process, happened: Callable[[], object]) -> None:
    """Polls until it happened; the process must still be at work."""
    deadline = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, f"it ended with {process.returncode} before anything could be killed"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.005)


def kill(process) -> None:
    process.kill()
    process.wait()
    assert process.returncode == -9


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "provenance.json"}  # seconds


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def test_killed_while_distilling_and_while_evaluating(start, dd_bench, tmp_path, monkeypatch):
    runs = tmp_path / "runs"

    # In the middle of a step: checkpoints are written after each, and the process is always within one.
    process = start("run", *DM)
    wait_until(
        process, lambda: any(len(p.read_text().splitlines()) > 5 for p in runs.glob("work/*/log.jsonl"))
    )
    kill(process)
    assert not list(runs.glob("sets/[!.]*")) and not list(runs.glob("records/*")), (
        "killed too late to tell anything"
    )
    checkpoint = only(runs, "work/*/distill.checkpoint.safetensors")
    steps = len((checkpoint.parent / "log.jsonl").read_text().splitlines())
    assert 0 < steps < 250

    process = start("run", *DM)
    wait_until(process, lambda: list(runs.glob("work/*/scores.jsonl")))
    kill(process)
    assert not list(runs.glob("records/*"))
    folder, journal = only(runs, "sets/[!.]*"), only(runs, "work/*/scores.jsonl")
    finished = Journal(journal).finished(0)
    assert 0 < len(finished) < 8
    assert "distill resumes at step" in (tmp_path / "printed.txt").read_text()
    rows = [json.loads(line)["step"] for line in (checkpoint.parent / "log.jsonl").read_text().splitlines()]
    assert rows == list(range(250)), "each step once, though some were done twice"

    trained = []
    plain = examination.train
    monkeypatch.setattr(examination, "train", lambda *a, **k: trained.append(k["seed"]) or plain(*a, **k))
    done = dd_bench("run", *DM)
    assert done.code == 0, done.text
    assert len(trained) == 8 - len(finished), "finished networks are not trained again"
    assert not journal.exists() and not checkpoint.exists(), "what they led to is kept"
    assert not [p for p in runs.rglob(".*") if p.name != ".hydra"], "nor what the kills left of them"
    record = load_record(only(runs, "records/*.json"))

    whole = tmp_path / "whole"
    assert dd_bench("run", *DM, f"out={whole}").code == 0
    assert content(folder) == content(only(whole, "sets/[!.]*"))
    uninterrupted = load_record(only(whole, "records/*.json"))
    assert record.scores == uninterrupted.scores and record.set_digests == uninterrupted.set_digests
    assert (
        record.key == uninterrupted.key and record.seconds["distill"] > 0.2 * uninterrupted.seconds["distill"]
    )


def test_a_sweep_that_was_killed_does_only_what_is_missing(start, dd_bench, tmp_path):
    records = tmp_path / "runs" / "records"
    sweep = ["-m", "method=random", "seed=0,1,2,3,4,5", *DM[3:]]
    process = start("run", *sweep)
    wait_until(process, lambda: len(list(records.glob("*.json"))) >= 2)
    kill(process)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in records.glob("*.json")}
    assert 2 <= len(before) < 6

    done = dd_bench("run", *sweep)
    assert done.code == 0, done.text
    after = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in records.glob("*.json")}
    assert len(after) == 6 and before.items() <= after.items()
    assert done.text.count("already measured") == len(before)
    assert {load_record(p).seeds["run"] for p in after} == set(range(6))


@pytest.mark.slow
def test_workers_end_with_a_killed_run(start, tmp_path):
    """Nothing is left that eats memory and cores, and the next run finishes the rest."""
    spread = [*DM, "method=random", "runtime.workers=2", "protocol.recipe.epochs=300"]
    spread = [o for o in spread if not o.startswith("method.") and o != "method=dm"]
    process = start("run", *spread)
    wait_until(process, lambda: list((tmp_path / "runs").glob("work/*/scores.jsonl")))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    kill(process)
    deadline = time.monotonic() + 30
    while any(alive(int(pid)) for pid in children):
        assert time.monotonic() < deadline, "a worker outlived its run"
        time.sleep(0.05)
    again = start("run", *spread)
    assert again.wait(timeout=200) == 0
    assert len(load_record(only(tmp_path / "runs", "records/*.json")).scores) == 8


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
