"""Loggers: log.jsonl by default, Weights & Biases beside it, without a network."""

import json
from unittest.mock import create_autospec

import pytest

from dd_bench.runtime.loggers import Jsonl, Logger, MultiLogger, Wandb


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestJsonl:
    def test_a_line_a_step(self, tmp_path):
        logger = Jsonl(tmp_path / "deep" / "log.jsonl")
        assert not (tmp_path / "deep").exists(), "nothing is made before there is something to say"
        logger.log("distill", 0, {"loss": 0.1, "lr": 1e-9})
        logger.log("distill", 1, {"loss": float("nan"), "grad": float("inf")})
        assert rows(tmp_path / "deep" / "log.jsonl") == [
            {"loop": "distill", "step": 0, "loss": 0.1, "lr": 1e-9},
            {"loop": "distill", "step": 1, "loss": "nan", "grad": "inf"},
        ]

    def test_resume_drops_what_is_written_again(self, tmp_path):
        logger = Jsonl(tmp_path / "log.jsonl")
        logger.resume("distill", 0)
        for loop in ("squeeze", "recover"):
            for step in range(3):
                logger.log(loop, step, {"loss": step})
        logger.resume("recover", 1)
        assert [(r["loop"], r["step"]) for r in rows(tmp_path / "log.jsonl")] == [
            ("squeeze", 0),
            ("squeeze", 1),
            ("squeeze", 2),
            ("recover", 0),
        ]

    @pytest.mark.parametrize("tail", ['{"loop": "distill", "st', "nonsense", "[1]", '{"step": 1}', "\n"])
    def test_a_broken_tail_is_dropped(self, tmp_path, tail):
        path = tmp_path / "log.jsonl"
        Jsonl(path).log("distill", 0, {"loss": 1.0})
        with path.open("a") as file:
            file.write(tail)
        Jsonl(path).resume("distill", 1)
        Jsonl(path).log("distill", 1, {"loss": 2.0})
        assert [r["step"] for r in rows(path)] == [0, 1]

    def test_a_missing_end_of_line_does_not_cost_two(self, tmp_path):
        path = tmp_path / "log.jsonl"
        Jsonl(path).log("distill", 0, {"loss": 1.0})
        path.write_text(path.read_text().rstrip("\n"))
        Jsonl(path).resume("distill", 1)
        Jsonl(path).log("distill", 1, {"loss": 2.0})
        assert [r["step"] for r in rows(path)] == [0, 1]


def test_several_pass_everything_on():
    calls = []

    class Spy(Logger):
        def log(self, *a):
            calls.append(("log", *a))

        def open(self, *a):
            calls.append(("open", *a))

        def resume(self, *a):
            calls.append(("resume", *a))

        def close(self):
            calls.append(("close",))

    logger = MultiLogger([Spy(), Spy()])
    logger.open("folder", "id", {})
    logger.resume("distill", 3)
    logger.log("distill", 3, {"loss": 1.0})
    logger.close()
    assert calls[::2] == calls[1::2]
    assert [c[0] for c in calls[::2]] == ["open", "resume", "log", "close"]


def test_wandb_outside_a_run_is_silent():
    """`dd-bench evaluate` has no run to log to."""
    logger = Wandb(project="p", entity=None, mode="offline", tags=[])
    logger.resume("distill", 0)
    logger.log("distill", 0, {"loss": 1.0})
    logger.close()


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Any connection but to this machine fails, as it does without a network."""
    import socket

    plain = socket.socket.connect

    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            raise OSError(101, "Network is unreachable")
        return plain(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    for name, value in (("CONFIG_DIR", "config"), ("CACHE_DIR", "cache"), ("DATA_DIR", "data")):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / value))
    monkeypatch.setenv("WANDB_SILENT", "true")


@pytest.mark.filterwarnings("ignore")  # of wandb's own
def test_wandb_takes_our_calls(tmp_path, monkeypatch):
    """Checked against the signatures of the installed release: one has dropped an argument before."""
    import wandb

    run = create_autospec(wandb.Run, instance=True)
    monkeypatch.setattr("wandb.init", create_autospec(wandb.init, return_value=run))
    logger = Wandb(project="p", entity=None, mode="offline", tags=["a"])
    logger.open(tmp_path / "work", "0123456789abcdef", {"ipc": 1})
    logger.resume("distill", 0)
    logger.log("distill", 7, {"loss": 1.0})
    logger.close()
    assert (
        wandb.init.call_args.kwargs["id"] == "0123456789abcdef"
        and wandb.init.call_args.kwargs["mode"] == "offline"
    )
    run.define_metric.assert_called_once_with("distill/*", step_metric="distill/step")
    run.log.assert_called_once_with({"distill/step": 7, "distill/loss": 1.0})
    run.finish.assert_called_once_with()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of wandb's own
def test_wandb_offline(dd_bench, small, tmp_path, no_network):
    """A run of a method, logged and resumed without an account and without a network."""
    done = dd_bench("run", *small("dm", "logger=wandb", "log_every=1"))
    assert done.code == 0, done.text
    (written,) = (tmp_path / "runs" / "work").rglob("run-*.wandb")
    data = written.read_bytes()
    for text in (b"distill/loss", b"distill/step", b"dd-bench"):
        assert text in data, text
    work = written.parents[2]
    assert [r["step"] for r in rows(work / "log.jsonl")] == [0, 1, 2], "log.jsonl is there all the same"
    assert work.name in written.name, (
        "the run is named by the content key, so that a resumed run goes on with it"
    )
