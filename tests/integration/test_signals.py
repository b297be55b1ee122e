"""Runs that SIGKILL, SIGINT or SIGTERM stops at any moment end, after restarts, with the bytes of an unstopped run."""

import os
import random
import signal
import sys
import time

import pytest

from dd_bench.cli import main
from dd_bench.records.record import load_record
from dd_bench.runtime.checkpoint import saved_progress

SMALL = ["ipc=1", "runtime=one_thread", "runtime.precision=fp32", "runtime.compile=never"]
DIGITS = [*SMALL, "model.width=8", "evaluator.num_networks=3", "protocol.recipe.epochs=150"]
RUNS = {
    "dm": ["method=dm", "method.batch_real=8", "method.iterations=150", *DIGITS],
    "mtt": [
        "method=mtt",
        "method.iterations=60",
        "method.syn_steps=4",
        "method.lr_img=10",
        "method.window.stop=2",
        "method.expert_epochs=1",
        "method.experts.count=2",
        "method.experts.recipe.epochs=4",
        *DIGITS,
    ],
    "mirage": [
        "method=mirage",
        "dataset=motifs",
        "dataset.graphs=60",
        "dataset.base=6",
        "model=gcn",
        "model.hidden=8",
        "model.layers=2",
        "protocol.recipe.steps=150",
        "evaluator.num_networks=4",
        "evaluator.eval_points=1",
        *SMALL,
    ],
}


def outputs(out):
    """Return the files of the sets, and the scores and set digests of the records."""
    sets = {p.name: p.read_bytes() for p in out.glob("sets/*/*") if p.name != "provenance.json"}
    return sets, [
        (r.key, r.scores, r.set_digests) for p in out.glob("records/*.json") for r in [load_record(p)]
    ]


def wait_until(process, happened):
    deadline = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, f"the process ended with {process.returncode} before the signal"
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.005)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_while_distilling(start, tmp_path, number, code):
    """A signal saves the last step, although no checkpoint is due. The message has the command to continue."""
    command = [
        "distill",
        "method=dm",
        "method.batch_real=8",
        "method.iterations=100000",
        *SMALL,
        "model.width=8",
    ]
    process = start(*command, "log_every=1", "out='my rüns'")
    wait_until(process, lambda: any(p.stat().st_size for p in tmp_path.glob("my rüns/work/*/log.jsonl")))
    os.kill(process.pid, number)
    assert process.wait(timeout=60) == code
    (checkpoint,) = tmp_path.glob("my rüns/work/*/distill.checkpoint.safetensors")
    step = saved_progress(checkpoint)[0]
    assert len((checkpoint.parent / "log.jsonl").read_text().splitlines()) == step > 0
    printed = (tmp_path / "printed.txt").read_text()
    assert f"step {step} of 100000 of the loop distill" in printed and "Traceback" not in printed
    assert "    dd-bench distill method=dm" in printed and "my rüns" in printed


def test_signal_during_an_import(monkeypatch, capsys):
    """The error of a module that was half imported does not hide the signal."""

    def run(arguments):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            raise ImportError("partially initialized module")

    monkeypatch.setattr(main, "_run", run)
    monkeypatch.setitem(sys.modules, "dd_bench.cli.jobs", None)  # cannot be imported
    monkeypatch.setattr(sys, "argv", ["dd-bench", "run", "method=dm"])
    previous = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(SystemExit) as end:
        main.main()
    signal.signal(signal.SIGTERM, previous)
    assert end.value.code == 143
    assert "stopped by SIGTERM" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_runs_stopped_at_random_moments(start, tmp_path, name):
    """Two processes share each run, and random signals stop one of them."""
    moments = int(os.environ.get("DD_BENCH_MOMENTS", "4"))
    draw = random.Random(name)
    assert start("list", "method").wait(timeout=300) == 0  # the first process starts the fork server
    began = time.monotonic()
    assert start("run", *RUNS[name], "out=whole").wait(timeout=300) == 0
    length = time.monotonic() - began
    stopped = []
    for moment in range(moments):
        out = f"out{moment}"
        number = draw.choice([signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
        process, other = start("run", *RUNS[name], f"out={out}"), None
        if moment % 3 == 0:
            other = start("run", *RUNS[name], f"out={out}")
        time.sleep(draw.uniform(0.2, 0.95) * length)
        if process.poll() is None:
            os.kill(process.pid, number)
        stopped.append(process.wait(timeout=120))
        allowed = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number]
        assert stopped[-1] in (0, allowed), (tmp_path / "printed.txt").read_text()
        if other is not None:
            assert other.wait(timeout=300) == 0
        assert start("run", *RUNS[name], f"out={out}").wait(timeout=300) == 0
        assert outputs(tmp_path / out) == outputs(tmp_path / "whole")
        assert not list((tmp_path / out).rglob("*.checkpoint.safetensors"))
    assert any(stopped), "no run was stopped"
    assert "Traceback" not in (tmp_path / "printed.txt").read_text()
    print(f"{name}: exit codes {stopped}")
