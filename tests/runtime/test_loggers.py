"""Loggers: log.jsonl, TensorBoard, and Weights & Biases without a network connection."""

import json
import struct
from unittest.mock import Mock, create_autospec

import pytest

from dd_bench.pipeline.compose import RunConfig
from dd_bench.runtime.loggers import Jsonl, Logger, MultiLogger, Wandb
from dd_bench.runtime.tensorboard import TensorBoard


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

        def log_image(self, *a):
            calls.append(("log_image", *a))

        def summarise(self, *a):
            calls.append(("summarise", *a))

        def close(self):
            calls.append(("close",))

    logger = MultiLogger([Spy()], other=Spy())
    logger.open("folder", "id", {}, "title")
    logger.resume("distill", 3)
    logger.log("distill", 3, {"loss": 1.0})
    logger.log_image("distill", 4, "preview.png")
    logger.summarise({"accuracy": 0.5})
    logger.close()
    assert calls[::2] == calls[1::2]
    assert [c[0] for c in calls[::2]] == ["open", "resume", "log", "log_image", "summarise", "close"]
    assert logger and not MultiLogger()


def test_wandb_does_nothing_outside_a_run():
    """`dd-bench evaluate` does not open a run."""
    logger = Wandb(project="p", entity=None, mode="offline", tags=[])
    logger.resume("distill", 0)
    logger.log("distill", 0, {"loss": 1.0})
    logger.close()


def test_tensorboard_reads_its_log(tmp_path):
    """TensorBoard's own reader returns the scalars, the image, the configuration and the summary."""
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Image.new("RGB", (3, 2), "red").save(tmp_path / "preview.png")
    logger = TensorBoard()
    logger.log("distill", 0, {"loss": 1.0})  # before a run: no effect
    logger.open(tmp_path / "work", "0123", {"ipc": 1}, "dm on digits")
    logger.log("distill", 5, {"loss": 0.5, "lr": 0.25})
    logger.log_image("distill", 6, tmp_path / "preview.png")
    logger.summarise({"accuracy": 0.75, "status": "done"})
    logger.close()
    log = EventAccumulator(str(tmp_path / "work" / "tensorboard"))
    log.Reload()
    scalars = {tag: [(e.step, e.value) for e in log.Scalars(tag)] for tag in log.Tags()["scalars"]}
    assert scalars == {
        "distill/loss": [(5, 0.5)],
        "distill/lr": [(5, 0.25)],
        "summary/accuracy": [(0, 0.75)],
    }
    (image,) = log.Images("distill/images")
    assert (image.step, image.width, image.height) == (6, 3, 2)
    texts = {tag: log.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in log.Tags()["tensors"]}
    assert "dm on digits (0123)" in texts["run/text_summary"]
    assert '"ipc": 1' in texts["config/text_summary"]
    assert "| accuracy | 0.75 |" in texts["summary/text_summary"]


def test_missing_tensorboard(monkeypatch):
    monkeypatch.setattr("dd_bench.runtime.tensorboard.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'dd-bench\[tensorboard\]'"):
        TensorBoard()


def test_several_loggers_are_selected():
    config = RunConfig.of(["logger=[wandb,tensorboard]", "logger.wandb.mode=disabled"]).cfg.logger
    assert {"wandb", "tensorboard"} < set(config) and config.wandb.mode == "disabled"


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
    run.summary = Mock()  # set by the constructor
    monkeypatch.setattr("wandb.init", create_autospec(wandb.init, return_value=run))
    logger = Wandb(project="p", entity=None, mode="offline", tags=["a"])
    logger.open(tmp_path / "work", "0123456789abcdef", {"ipc": 1}, "dm on digits")
    logger.resume("distill", 0)
    logger.log("distill", 7, {"loss": 1.0})
    logger.summarise({"accuracy": 0.5})
    logger.close()
    assert (
        wandb.init.call_args.kwargs["id"] == "0123456789abcdef"
        and wandb.init.call_args.kwargs["mode"] == "offline"
        and wandb.init.call_args.kwargs["name"] == "dm on digits"
    )
    run.summary.update.assert_called_once_with({"accuracy": 0.5})
    run.define_metric.assert_called_once_with("distill/*", step_metric="distill/step")
    run.log.assert_called_once_with({"distill/step": 7, "distill/loss": 1.0})
    run.finish.assert_called_once_with()


def records_of(path):
    """Return the records of a wandb file. It is a LevelDB log: blocks of 32 KiB with pieces of records."""
    from wandb.proto import wandb_internal_pb2

    data, position, pieces, records = path.read_bytes(), 7, b"", []
    while position + 7 <= len(data):
        if position % 32768 > 32768 - 7:  # the rest of the block is padding
            position += -position % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        pieces += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # a whole record, or its last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(pieces)
            records.append(record)
            pieces = b""
    return records


def history_of(path):
    """Return the rows that a run has logged, and its summary."""

    def values(items):
        return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}

    history = [values(r.history.item) for r in records_of(path) if r.WhichOneof("record_type") == "history"]
    summaries = [
        values(r.summary.update) for r in records_of(path) if r.WhichOneof("record_type") == "summary"
    ]
    return history, {key: value for summary in summaries for key, value in summary.items()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # wandb's own warnings
def test_wandb_offline(dd_bench, small, tmp_path, no_network):
    """A run is logged without an account or a network: losses and previews, curves and scores, and the summary."""
    done = dd_bench("run", *small("dm", "logger=[wandb,tensorboard]", "log_every=1", "log_images_every=2"))
    assert done.code == 0, done.text
    files = {path.stem.removeprefix("run-"): path for path in tmp_path.rglob("run-*.wandb")}
    (record,) = (tmp_path / "runs" / "records").glob("*.json")
    assert record.stem in files, "the run id is the content key, so a resumed run continues it"
    evaluated, summary = history_of(files.pop(record.stem))
    (key,) = files
    distilled, _ = history_of(files[key])

    assert [row["distill/step"] for row in distilled if "distill/loss" in row] == [0, 1, 2]
    kind = "distill/images/_type"
    assert {row["distill/step"]: row[kind] for row in distilled if kind in row} == dict.fromkeys(
        (0, 2, 3), "image-file"
    )
    work = tmp_path / "runs" / "work" / key
    assert sorted(p.name for p in work.glob("*.png")) == [f"preview-{step}.png" for step in (0, 2, 3)]
    assert [r["step"] for r in rows(work / "log.jsonl")] == [0, 1, 2], "log.jsonl is also written"

    saved = json.loads(record.read_text())
    scores = {s["network"]: s["value"] for s in saved["scores"] if s["metric"] == "accuracy"}
    logged = {row["scores/step"]: row["scores/accuracy"] for row in evaluated if "scores/step" in row}
    assert logged == pytest.approx(scores)
    assert {"train_loss/network 0", "train_loss/step"} < set().union(*evaluated)
    assert summary["accuracy"] == pytest.approx(sum(scores.values()) / len(scores))
    assert summary["status"] == "done" and summary["stored_bytes"] > 0
    assert (work / "tensorboard").is_dir() and (work.parent / record.stem / "tensorboard").is_dir()
