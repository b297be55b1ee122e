"""Loggers: log.jsonl, and Weights & Biases without a network connection."""

import json
from unittest.mock import create_autospec

import pytest

from dd_bench.runtime.loggers import Jsonl, Logger, MultiLogger, Wandb


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestJsonl:
    def test_one_line_per_step(self, tmp_path):
        logger = Jsonl(tmp_path / "deep" / "log.jsonl")
        assert not (tmp_path / "deep").exists(), "no file is created before the first line"
        logger.log("distill", 0, {"loss": 0.1, "lr": 1e-9})
        logger.log("distill", 1, {"loss": float("nan"), "grad": float("inf")})
        assert rows(tmp_path / "deep" / "log.jsonl") == [
            {"loop": "distill", "step": 0, "loss": 0.1, "lr": 1e-9},
            {"loop": "distill", "step": 1, "loss": "nan", "grad": "inf"},
        ]

    def test_resume_deletes_the_steps_that_are_repeated(self, tmp_path):
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
    def test_resume_deletes_an_invalid_last_line(self, tmp_path, tail):
        path = tmp_path / "log.jsonl"
        Jsonl(path).log("distill", 0, {"loss": 1.0})
        with path.open("a") as file:
            file.write(tail)
        Jsonl(path).resume("distill", 1)
        Jsonl(path).log("distill", 1, {"loss": 2.0})
        assert [r["step"] for r in rows(path)] == [0, 1]

    def test_resume_after_a_missing_final_newline(self, tmp_path):
        path = tmp_path / "log.jsonl"
        Jsonl(path).log("distill", 0, {"loss": 1.0})
        path.write_text(path.read_text().rstrip("\n"))
        Jsonl(path).resume("distill", 1)
        Jsonl(path).log("distill", 1, {"loss": 2.0})
        assert [r["step"] for r in rows(path)] == [0, 1]


def test_multi_logger_forwards_every_call():
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


def test_wandb_does_nothing_outside_a_run():
    """`dd-bench evaluate` does not open a run."""
    logger = Wandb(project="p", entity=None, mode="offline", tags=[])
    logger.resume("distill", 0)
    logger.log("distill", 0, {"loss": 1.0})
    logger.close()


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """All connections to other hosts fail, as without a network."""
    import socket

    original = socket.socket.connect

    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            raise OSError(101, "Network is unreachable")
        return original(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    for name, value in (("CONFIG_DIR", "config"), ("CACHE_DIR", "cache"), ("DATA_DIR", "data")):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / value))
    monkeypatch.setenv("WANDB_SILENT", "true")


@pytest.mark.filterwarnings("ignore")  # wandb's own warnings
def test_calls_match_the_signatures_of_wandb(tmp_path, monkeypatch):
    """The installed release is checked, because an earlier one removed an argument."""
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
@pytest.mark.filterwarnings("ignore")  # wandb's own warnings
def test_wandb_offline(dd_bench, small, tmp_path, no_network):
    """A run of a method is logged without an account or a network."""
    done = dd_bench("run", *small("dm", "logger=wandb", "log_every=1"))
    assert done.code == 0, done.text
    (file,) = (tmp_path / "runs" / "work").rglob("run-*.wandb")
    data = file.read_bytes()
    for text in (b"distill/loss", b"distill/step", b"dd-bench"):
        assert text in data, text
    work = file.parents[2]
    assert [r["step"] for r in rows(work / "log.jsonl")] == [0, 1, 2], "log.jsonl is also written"
    assert work.name in file.name, "the run id is the content key, so a resumed run continues it"
