"""Tests of `benchmarks/cuda_check.py`: limits of time, results after each row, and parts that fail."""

import copy
import importlib
import json
import os
import select
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

import pytest
import torch

from dd_bench.training.together import LockStepError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(BENCHMARKS)
    cuda_check = importlib.import_module("cuda_check")
    tables = importlib.import_module("tables")
    accuracy = importlib.import_module("cuda_parts.accuracy")
    lock_step = importlib.import_module("cuda_parts.lock_step")
    steps = importlib.import_module("cuda_parts.steps")

ROW = "import json, os, sys, time\ndef row(**r):\n open(sys.argv[1], 'a').write(json.dumps(r) + chr(10))\n"
DESCRIBED = {
    "environment": {"name": "a card", "torch": "2.14", "driver": None},
    "code": {"revision": "0123456789", "dirty": False},
}


def part(name, code, share=1.0):
    return cuda_check.Part(name, share, [sys.executable, "-S", "-c", ROW + code])


def checked(*parts, seconds=60):
    """Run fake parts. Return whether all have ended, the last results, and all that were written."""
    written = []
    results = cuda_check.Results(lambda parts: written.append(copy.deepcopy(parts)), DESCRIBED)
    return cuda_check.check(parts, results, seconds), results.parts, written


@pytest.fixture
def pipe(monkeypatch):
    """A pipe whose two ends the parts inherit."""
    ends = os.pipe()
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: start(*a, **k, pass_fds=ends))
    return ends


def test_rows_are_written_before_the_part_has_ended(pipe):
    """A check that is killed keeps the first row: the part can only end after this row was written."""
    written = []

    def write(parts):
        if parts["steps"]["rows"] == [{"ms": 1}] and not any(p["steps"]["rows"] for p in written):
            os.write(pipe[1], b"x")
        written.append(copy.deepcopy(parts))

    fake = part("steps", f"row(ms=1); os.read({pipe[0]}, 1); row(ms=2)")
    assert cuda_check.check([fake], cuda_check.Results(write, DESCRIBED), 60)
    assert next(p["steps"]["status"] for p in written if p["steps"]["rows"]) == "running"
    assert written[-1]["steps"]["rows"] == [{"ms": 1}, {"ms": 2}]
    assert written[-1]["steps"]["status"] == "done" and written[-1]["steps"]["log"] == []


def test_part_that_fails_does_not_stop_the_others():
    done, parts, _ = checked(
        part("tests", "row(ms=1); print('before'); raise ValueError('no kernel')"), part("steps", "row(ms=2)")
    )
    assert not done
    assert parts["tests"]["status"] == "failed with exit status 1" and parts["tests"]["rows"] == [{"ms": 1}]
    assert parts["tests"]["log"][0] == "before" and parts["tests"]["log"][-1] == "ValueError: no kernel"
    assert parts["steps"]["status"] == "done"


def test_part_that_takes_too_long_is_stopped_with_its_processes(pipe):
    """The end of the pipe is reached when no process holds it open for writing."""
    fake = part("tests", "row(ms=1); os.fork(); time.sleep(60)", share=0.01)
    done, parts, _ = checked(fake, part("steps", ""), seconds=50)
    assert not done
    assert parts["tests"]["status"] == "timed out" and parts["tests"]["rows"] == [{"ms": 1}]
    assert parts["tests"]["seconds"] < 30 and parts["steps"]["status"] == "done"
    os.close(pipe[1])
    assert select.select([pipe[0]], [], [], 5)[0] and os.read(pipe[0], 1) == b""


def test_unused_time_is_left_to_later_parts():
    _, parts, _ = checked(*(part(name, "") for name in ("tests", "accuracy", "steps")), seconds=30)
    limits = [p["limit"] for p in parts.values()]
    assert limits[0] == pytest.approx(10, abs=1)
    assert limits[0] < limits[1] < limits[2] <= 30


def test_shares_are_eight_minutes_minus_the_start():
    assert 450 <= sum(p.share for p in cuda_check.PARTS) <= 480
    assert all((BENCHMARKS / "cuda_parts" / f"{p.name}.py").exists() for p in cuda_check.PARTS)


def test_selection():
    assert [p.name for p in cuda_check.selected("3,accuracy")] == ["accuracy", "lock_step"]
    with pytest.raises(ValueError, match=r"no part '9'.*Parts: 1 tests, 2 accuracy"):
        cuda_check.selected("9")


def test_results_of_other_parts_are_kept():
    results = cuda_check.Results(lambda parts: None, DESCRIBED, {"accuracy": {"status": "done", "rows": [1]}})
    cuda_check.check([part("steps", "")], results, 60)
    assert results.parts["accuracy"] == {"status": "done", "rows": [1]}
    assert results.parts["steps"]["code"] == DESCRIBED["code"]


def test_without_a_card(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["cuda_check.py"])
    with pytest.raises(SystemExit) as stopped:
        cuda_check.main()
    assert stopped.value.code == 2 and "no CUDA GPU" in capsys.readouterr().err


def test_tables():
    assert tables.cuda_check({}) == "Not yet measured on a GPU."
    rows = [
        {"table": "Steps", "method": "dm", "ms/step": 1.5, "data": [1]},
        {"table": "Steps", "method": "dc"},
    ]
    text = tables.cuda_check(
        {"parts": {"steps": {**DESCRIBED, "status": "done", "seconds": 3.2, "rows": rows}}}
    )
    assert "| steps | " in text and "01234567" in text and "**Steps**" in text
    assert "| dm     |     1.5 |" in text and "data" not in text


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.01, 0.02, "equal"), (0.001, 0.01, "equal"), (0.001, 0.03, "different"), (-0.03, 0.01, "too few")],
)
def test_verdict(low, high, expected):
    assert accuracy.verdict(low, high) == expected


def test_welch_interval():
    """Against scipy's implementation."""
    from scipy import stats

    a, b = [0.5, 0.6, 0.55, 0.7], [0.4, 0.45, 0.41]
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert accuracy.welch_interval(a, b) == pytest.approx((expected.low, expected.high))


def test_every_committed_figure_of_the_cpu_is_a_case():
    """The cases of Fashion-MNIST under dc-300 have an entry of the leaderboard."""
    cases = accuracy.cases(["fashion_mnist", "digits"])
    assert accuracy.reference().keys() <= {case.name for case in cases}
    found = {case: figures for case in cases if (figures := accuracy.committed(case))}
    assert all(
        case in found for case in cases if case.dataset == "fashion_mnist" and case.protocol == "dc-300"
    )
    assert all(0 < value <= 1 for figures in found.values() for value in figures.scores.values())


def test_case_without_results_of_a_cpu_has_a_row(monkeypatch):
    """It is not left out silently."""
    known = accuracy.Case("digits", "dc-300", 1, 32)
    monkeypatch.setattr(
        accuracy, "committed", lambda case: accuracy.Figures({(0, 0): 0.5}, "x") if case == known else None
    )
    monkeypatch.setattr(accuracy, "against_cpu", lambda card, cases, precision: iter([]))
    monkeypatch.setattr(accuracy, "graph_guards", lambda card: iter([]))
    card = mock.Mock(small=False, datasets=lambda: ["digits"])
    rows = list(accuracy.rows(card))
    assert len(rows) == 7 and {row["verdict"] for row in rows} == {"no results of a CPU"}
    assert ("dsa-1000", 10, 128) in {(row["protocol"], row["IPC"], row["width"]) for row in rows}


def test_results_with_the_most_networks_are_used(monkeypatch):
    """The leaderboard's entry of this case has 10 networks."""
    case = accuracy.Case("digits", "dc-300", 1, 32)
    assert [len(found.scores) for found in accuracy.entries(case)] == [10]
    for networks, source in ((5, "digits-random"), (20, "cuda_reference.json")):
        measured = {"accuracies": [0.5] * networks}
        monkeypatch.setattr(accuracy, "reference", lambda measured=measured: {case.name: measured})
        assert accuracy.committed(case).source.startswith(source)


def test_both_sides_state_their_number_of_networks():
    row = accuracy.compared({(0, n): 0.5 for n in range(3)}, {(0, n): 0.5 for n in range(4)})
    assert (row["networks, CPU"], row["networks, CUDA"]) == (4, 3)


@pytest.mark.filterwarnings("always")
def test_waits_are_counted_after_the_timed_steps(tmp_path):
    """A step that waits warns, as `torch.cuda.set_sync_debug_mode("warn")` does. Other warnings are not counted."""
    found = steps.Steps(steps.Card("cpu", small=True), steps.Plan(warm_up=1, timed=2, counted=3))
    loop = steps.OuterLoop(tmp_path, logger=mock.Mock(), log_every=100, checkpoint_seconds=100)
    with found.observed():
        for _ in loop.steps(found.total, {}, "distill"):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
            warnings.warn("other", stacklevel=1)
    (place,) = found.waits
    assert place.startswith("tests/device/test_cuda_check.py:") and found.waits[place] == 3
    assert found.seconds > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [part.name for part in cuda_check.PARTS if part.name != "tests"])
def test_part_on_the_simulated_device(counts, simulated, monkeypatch, name):
    """A rehearsal on a CPU does not find tensors and generators of two devices."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module(f"cuda_parts.{name}")
    assert all(module.rows(steps.Card(simulated.DEVICE.type, small=True)))


@pytest.mark.slow
def test_rehearsal(tmp_path):
    """All parts, at their smallest size on the CPU."""
    command = [sys.executable, str(BENCHMARKS / "cuda_check.py"), "--rehearse", "--out", str(tmp_path)]
    done = subprocess.run([*command, "--minutes", "30"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    parts = json.loads((tmp_path / "cuda_check.json").read_text())["parts"]
    assert list(parts) == [p.name for p in cuda_check.PARTS]
    assert all(p["status"] == "done" and p["rows"] for p in parts.values())
    repeated = [row for row in parts["bits"]["rows"] if "same bytes" in row]
    assert repeated and all(row["same bytes"] == "yes" for row in repeated)
    assert "**The same bytes again**" in (tmp_path / "cuda_check.md").read_text()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (LockStepError("vmap: not supported\nat line 3"), "failed: vmap: not supported"),
    ],
)
def test_a_number_of_networks_that_fails_has_a_row(monkeypatch, error, text):
    """The other numbers are still measured."""
    monkeypatch.setattr(lock_step, "by_number", mock.Mock(side_effect=error))
    assert lock_step.measured(mock.Mock(device="cpu"), None, None, 20) == {"ms/step": text}
