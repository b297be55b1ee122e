"""Tests that a run killed with SIGKILL resumes and ends with the same bytes as an uninterrupted one."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dd_bench.evaluation import fresh_networks
from dd_bench.pipeline.score_log import ScoreLog
from dd_bench.records.record import load_record
from dd_bench.runtime.checkpoint import saved_progress

DM = [
    "method=dm",
    "method.batch_real=8",
    "model.width=8",
    "ipc=1",
    "runtime=one_thread",
    "runtime.precision=fp32",
    "runtime.compile=never",
    "checkpoint_seconds=0",
    "log_every=1",
]
# Training a network takes longer than the polling interval on a busy machine.
LONG = ["protocol.recipe.epochs=150", "evaluator.num_networks=8"]

EXPERTS = [
    "model.width=8",
    "ipc=1",
    "method.experts.count=2",
    "method.experts.recipe.momentum=0.5",
    "method.experts.recipe.batch_size=700",
    "method.experts.recipe.epochs=8",
    "method.expert_epochs=1",
    "runtime=one_thread",
    "runtime.precision=fp32",
    "runtime.compile=never",
]
MTT = [
    "method=mtt",
    *EXPERTS,
    "method.window.stop=2",
    "method.iterations=150",
    "method.syn_steps=4",
    "method.lr_img=10",
    "method.momentum_img=0.9",
    "checkpoint_seconds=0",
    "log_every=1",
]

GRAPHS = [
    "method=doscond",
    "method.iterations=120",
    "method.batch_real=4",
    "dataset=motifs",
    "dataset.graphs=40",
    "dataset.base=6",
    "model=gcn",
    "model.hidden=8",
    "model.layers=2",
    "ipc=2",
    "protocol.recipe.steps=150",
    "evaluator.num_networks=6",
    "evaluator.eval_points=1",
    "runtime=one_thread",
    "checkpoint_seconds=0",
    "log_every=1",
]


def wait_until(process, happened: Callable[[], object]) -> None:
    """Poll until `happened()` is true; the process must still be running."""
    deadline = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, (
            f"the process ended with {process.returncode} before it could be killed"
        )
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.005)


def kill(process) -> None:
    process.kill()
    process.wait()
    assert process.returncode == -9


KILLING = """
import os, pkgutil, signal
calls, owner = 0, pkgutil.resolve_name(function.rpartition(".")[0])
original = getattr(owner, function.rpartition(".")[2])
def killing(first, *rest, **named):
    global calls
    calls += not pattern or pattern in os.readlink(f"/proc/self/fd/{first}")
    if calls == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(first, *rest, **named)
setattr(owner, function.rpartition(".")[2], killing)
"""


def killed_at(start, function: str, number: int, pattern: str, *arguments: str) -> None:
    """Run a command that kills itself in call `number` of a function on files whose name contains the pattern."""
    first = f"function, number, pattern = {function!r}, {number}, {pattern!r}\n{KILLING}"
    process = start(*arguments, first=first)
    assert process.wait(timeout=120) == -9, "the process ended before it could be killed"


def kill_while_distilling(process, runs: Path) -> None:
    """Kill the process after a few steps, whose checkpoints are written after each step."""
    wait_until(
        process, lambda: any(len(p.read_text().splitlines()) > 5 for p in runs.glob("work/*/log.jsonl"))
    )
    kill(process)


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "provenance.json"}  # seconds


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


@pytest.mark.parametrize("at_random", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_kill_while_distilling_and_while_evaluating(start, dd_bench, tmp_path, monkeypatch, at_random):
    """Kill while a checkpoint is written and while a network is trained, or at a random moment."""
    runs = tmp_path / "runs"
    iterations, networks, epochs = (250, 8, 150) if at_random else (12, 3, 5)
    sizes = (f"protocol.recipe.epochs={epochs}", f"evaluator.num_networks={networks}")
    command = ["run", *DM, f"method.iterations={iterations}", *sizes]

    if at_random:
        kill_while_distilling(start(*command), runs)
    else:
        killed_at(start, "os.fsync", 7, "distill.checkpoint", *command)
    assert not list(runs.glob("sets/[!.]*")) and not list(runs.glob("records/*")), "killed too late"
    checkpoint = only(runs, "work/*/distill.checkpoint.safetensors")
    steps = len((checkpoint.parent / "log.jsonl").read_text().splitlines())
    assert 0 < steps < iterations

    if at_random:
        process = start(*command)
        wait_until(process, lambda: any("\n" in p.read_text() for p in runs.glob("work/*/scores.jsonl")))
        kill(process)
    else:  # in the third step of the second network
        killed_at(
            start,
            "torch.optim.SGD.step",
            iterations - saved_progress(checkpoint)[0] + epochs + 3,
            "",
            *command,
        )
    assert not list(runs.glob("records/*"))
    folder, score_log = only(runs, "sets/[!.]*"), only(runs, "work/*/scores.jsonl")
    finished = ScoreLog(score_log).finished(0)
    assert 0 < len(finished) < networks
    assert "distill resumes at step" in (tmp_path / "printed.txt").read_text()
    rows = [json.loads(line)["step"] for line in (checkpoint.parent / "log.jsonl").read_text().splitlines()]
    assert rows == list(range(iterations))  # each step once, although some were repeated

    trained = []
    original = fresh_networks.train
    monkeypatch.setattr(
        fresh_networks, "train", lambda *a, **k: trained.append(k["seed"]) or original(*a, **k)
    )
    done = dd_bench(*command)
    assert done.code == 0, done.text
    assert len(trained) == networks - len(finished)  # finished networks are not trained again
    assert not score_log.exists() and not checkpoint.exists()  # intermediate files are removed
    assert not [p for p in runs.rglob(".*") if p.name != ".hydra"]  # also temporary files of killed runs
    record = load_record(only(runs, "records/*.json"))

    whole = tmp_path / "whole"
    assert dd_bench(*command, f"out={whole}").code == 0
    assert content(folder) == content(only(whole, "sets/[!.]*"))
    uninterrupted = load_record(only(whole, "records/*.json"))
    assert record.scores == uninterrupted.scores and record.set_digests == uninterrupted.set_digests
    assert (
        record.key == uninterrupted.key and record.seconds["distill"] > 0.2 * uninterrupted.seconds["distill"]
    )


@pytest.mark.slow
def test_kill_while_distilling_and_evaluating_graphs(start, dd_bench, tmp_path):
    runs = tmp_path / "runs"
    process = start("run", *GRAPHS)
    kill_while_distilling(process, runs)
    assert not list(runs.glob("sets/[!.]*")), "killed too late"
    process = start("run", *GRAPHS)
    wait_until(process, lambda: any("\n" in p.read_text() for p in runs.glob("work/*/scores.jsonl")))
    kill(process)
    assert not list(runs.glob("records/*"))
    assert 0 < len(ScoreLog(only(runs, "work/*/scores.jsonl")).finished(0)) < 6
    assert "distill resumes at step" in (tmp_path / "printed.txt").read_text()
    done = dd_bench("run", *GRAPHS)
    assert done.code == 0, done.text
    whole = tmp_path / "whole"
    assert dd_bench("run", *GRAPHS, f"out={whole}").code == 0
    assert content(only(runs, "sets/[!.]*")) == content(only(whole, "sets/[!.]*"))
    record, uninterrupted = (load_record(only(out, "records/*.json")) for out in (runs, whole))
    assert record.scores == uninterrupted.scores and record.set_digests == uninterrupted.set_digests


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_kill_while_training_experts(start, dd_bench, tmp_path, workers):
    """Kill in the middle of an epoch, and resume in one process whatever the number of workers was."""
    cache = tmp_path / "runs" / "cache"
    epochs = 8 if workers > 1 else 4
    prepare = ["prepare", "method=ftd", *EXPERTS, f"method.window.stop={epochs}"]
    prepare += [f"method.experts.recipe.epochs={epochs}"]

    def done(expert):
        return sum(
            saved_progress(p)[0] for p in cache.glob(f"*.partial/expert{expert}.checkpoint.safetensors")
        )

    if workers == 1:
        killed_at(start, "os.fsync", 3, "expert1.checkpoint", *prepare)
    else:
        process = start(*prepare, f"runtime.workers={workers}")
        wait_until(process, lambda: done(1) >= 2)
        worker_pids = descendants(process.pid)
        assert len(worker_pids) >= workers
        kill(process)
        wait_until_dead(worker_pids)
    trained = done(0) + done(1)
    assert 2 <= done(1) < epochs and (done(0) == epochs or workers == 2), "killed too late"
    assert not list(cache.glob("*/entry.json"))  # an incomplete buffer is not an entry

    resumed = dd_bench(*prepare)
    assert resumed.code == 0, resumed.text
    assert f"experts resumes at step {trained} of {2 * epochs}" in resumed.text
    entry = only(cache, "*/entry.json").parent
    assert not list(cache.glob("*.partial")) and not list(entry.glob("*.checkpoint.safetensors"))

    whole = tmp_path / "whole"
    assert dd_bench(*prepare, f"out={whole}").code == 0
    uninterrupted = only(whole / "cache", "*/entry.json").parent
    assert entry.name == uninterrupted.name
    assert sha256(entry / "experts.safetensors") == sha256(uninterrupted / "experts.safetensors")
    seconds, uninterrupted_seconds = (
        json.loads((e / "entry.json").read_text())["seconds"] for e in (entry, uninterrupted)
    )
    assert seconds > 0.3 * uninterrupted_seconds  # the time of the killed run is included


@pytest.mark.slow
def test_kill_while_training_a_teacher(start, dd_bench, tmp_path):
    """Kill in the middle of an epoch, after an early epoch was stored and measured."""
    cache = tmp_path / "runs" / "cache"
    prepare = ["prepare", "method=sre2l", "ipc=1", "runtime=plain", "teachers.convnet_bn.model.width=8"]
    prepare += ["teachers.convnet_bn.recipe.epochs=12", "teachers.convnet_bn.keep=[2,9]"]

    def epochs():
        return sum(saved_progress(p)[0] for p in cache.glob("*.partial/training.checkpoint.safetensors"))

    process = start(*prepare)
    wait_until(process, lambda: epochs() >= 3)
    kill(process)
    assert 3 <= epochs() < 12 and not list(cache.glob("*/entry.json"))
    done = dd_bench(*prepare)
    assert done.code == 0, done.text
    assert "teacher convnet_bn resumes at step" in done.text
    whole = tmp_path / "whole"
    assert dd_bench(*prepare, f"out={whole}").code == 0
    ours, theirs = (only(c, "*/entry.json").parent for c in (cache, whole / "cache"))
    assert ours.name == theirs.name
    files = {"network.safetensors", "epoch2.safetensors", "epoch9.safetensors", "teacher.json"}
    assert {p.name for p in ours.iterdir()} == files | {"entry.json"}
    assert all(sha256(ours / name) == sha256(theirs / name) for name in files)


@pytest.mark.slow
def test_kill_while_matching_trajectories(start, dd_bench, tmp_path):
    runs = tmp_path / "runs"
    process = start("distill", *MTT)
    kill_while_distilling(process, runs)
    assert not list(runs.glob("sets/[!.]*")), "killed too late"
    log = only(runs, "work/*/log.jsonl")
    assert 5 < len(log.read_text().splitlines()) < 150
    buffer = only(runs, "cache/*/experts.safetensors")
    before = buffer.stat().st_mtime_ns

    done = dd_bench("distill", *MTT)
    assert done.code == 0, done.text
    assert "distill resumes at step" in done.text and buffer.stat().st_mtime_ns == before
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(150))
    assert not list(runs.glob("work/*/*.checkpoint.safetensors"))

    whole = tmp_path / "whole"
    assert dd_bench("distill", *MTT, f"out={whole}").code == 0
    assert sha256(buffer) == sha256(only(whole, "cache/*/experts.safetensors"))
    assert content(only(runs, "sets/[!.]*")) == content(only(whole, "sets/[!.]*"))


@pytest.mark.slow
def test_killed_sweep_runs_missing_jobs_only(start, dd_bench, tmp_path):
    records = tmp_path / "runs" / "records"
    sweep = ["-m", "method=random", "seed=0,1,2,3,4,5", *DM[2:], *LONG]
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
    """No worker survives its run, and the next run finishes the rest."""
    spread = [*DM, *LONG, "method=random", "runtime.workers=2", "protocol.recipe.epochs=300"]
    spread = [o for o in spread if not o.startswith("method.") and o != "method=dm"]
    process = start("run", *spread)
    wait_until(
        process, lambda: any("\n" in p.read_text() for p in (tmp_path / "runs").glob("work/*/scores.jsonl"))
    )
    worker_pids = descendants(process.pid)
    assert len(worker_pids) >= 2
    kill(process)
    wait_until_dead(worker_pids)
    resumed = start("run", *spread)
    assert resumed.wait(timeout=200) == 0
    assert len(load_record(only(tmp_path / "runs", "records/*.json")).scores) == 8


def descendants(pid: int) -> list[int]:
    """All descendants, because workers are forked from a server process."""
    children = [int(c) for p in Path(f"/proc/{pid}/task").glob("*/children") for c in p.read_text().split()]
    return children + [d for child in children for d in descendants(child)]


def wait_until_dead(pids: list[int]) -> None:
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlived its run"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False


SRE2L = [
    "method=sre2l",
    "ipc=3",
    "method.classes=5",
    "method.iterations=150",
    "teachers.convnet_bn.recipe.epochs=2",
    "teachers.convnet_bn.model.width=8",
    "model.width=8",
    "runtime=one_thread",
    "runtime.precision=fp32",
    "runtime.compile=never",
    "checkpoint_seconds=0",
    "log_every=1",
]


@pytest.mark.slow
def test_kill_one_of_two_processes_that_share_a_set(start, dd_bench, tmp_path):
    """Processes build different shards; a killed shard resumes; the bytes equal those of one process."""
    runs = tmp_path / "runs"
    assert dd_bench("prepare", *SRE2L).code == 0  # train the teacher before the processes start
    one, two = start("distill", *SRE2L), start("distill", *SRE2L)

    def logs() -> list[Path]:
        return [p for p in runs.glob("work/*/shards/*/log.jsonl") if len(p.read_text().splitlines()) > 5]

    wait_until(one, lambda: len(logs()) >= 2)  # both processes build a shard
    kill(one)
    two.wait(timeout=240)
    assert two.returncode == 0, (tmp_path / "printed.txt").read_text()
    shared = content(only(runs, "sets/[!.]*"))
    assert not list(runs.glob("work/*/shards"))  # shards are removed when the set is complete
    assert "resumes at step" in (tmp_path / "printed.txt").read_text(), "the killed shard did not resume"
    done = dd_bench("distill", *SRE2L, "out=alone", "cache=runs/cache")
    assert done.code == 0, done.text
    assert content(only(tmp_path / "alone", "sets/[!.]*")) == shared


def test_kill_while_labelling(start, dd_bench, tmp_path):
    """The replayed labels of a set resume after the last complete epoch and end with the same file."""
    command = [
        "method=random",
        "ipc=2",
        "protocol=sre2l-kd-400-replay",
        "protocol.recipe.epochs=12",
        *SRE2L[4:10],
        "evaluator=accuracy",  # evaluator=controls would also label the controls
        "evaluator.num_networks=1",
    ]
    runs = tmp_path / "runs"
    killed_at(start, "os.fsync", 5, "done.json", "run", *command)
    done = [int(p.read_text()) for p in runs.glob("cache/labels-*.partial/done.json")]
    assert 0 < done[0] < 12
    resumed = dd_bench("run", *command)
    assert resumed.code == 0, resumed.text
    whole = dd_bench("run", *command, "out=alone")
    assert whole.code == 0, whole.text
    a, b = (only(tmp_path / out, "cache/labels-*/labels.safetensors") for out in ("runs", "alone"))
    assert sha256(a) == sha256(b)
