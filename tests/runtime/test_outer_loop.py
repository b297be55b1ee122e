"""The outer loop: resumed runs are bitwise equal, non-finite values stop it, and every step is logged once."""

import json
import os
import signal

import pytest
import torch
from torch import Tensor

from dd_bench.runtime import checkpoint, interruption, seeding
from dd_bench.runtime.loggers import Jsonl, Logger
from dd_bench.runtime.outer_loop import Diverged, OuterLoop

ITERATIONS = 12


class Killed(BaseException):
    """Simulates kill -9; no code catches it."""


class Lines(Logger):
    """Stores the logged values."""

    def __init__(self):
        self.rows, self.resumed = [], []

    def log(self, loop, step, values):
        self.rows.append((loop, step, values))

    def resume(self, loop, step):
        self.resumed.append((loop, step))


def outer(folder, logger=None, log_every=1, checkpoint_seconds=0.0):
    logger = logger or Jsonl(folder / "log.jsonl")
    return OuterLoop(folder, logger, log_every=log_every, checkpoint_seconds=checkpoint_seconds)


def toy(loop, kill_at=None, iterations=ITERATIONS, name="distill", signal_at=None):
    """A small method with momentum, a scheduler that depends on the loss, and noise that depends only on the step."""
    images = torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.SGD([images], 0.05, momentum=0.9)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
    yielded = []
    for step in loop.steps(iterations, {"images": images, "optimizer": optimizer, "plateau": plateau}, name):
        yielded.append(step)
        optimizer.zero_grad()
        noise = torch.randn(5, generator=seeding.generator("cpu", 0, "noise", step))
        loss = (images - 1 - noise).square().sum()
        loss.backward()
        if step == kill_at:
            raise Killed
        if step == signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        optimizer.step()
        plateau.step(float(loss.detach()))
        loop.log(loss=loss)
    return images.detach(), yielded


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return toy(outer(tmp_path_factory.mktemp("uninterrupted")))[0]


@pytest.mark.parametrize("kill_at", [0, 1, 5, ITERATIONS - 1])
@pytest.mark.parametrize("log_every", [1, 5])
def test_killed_and_resumed_run_is_bitwise_equal(tmp_path, uninterrupted, kill_at, log_every):
    with pytest.raises(Killed):
        toy(outer(tmp_path, log_every=log_every), kill_at)
    images, yielded = toy(outer(tmp_path, log_every=log_every))
    assert torch.equal(images, uninterrupted)
    assert yielded == list(range(kill_at, ITERATIONS)), "exactly the remaining steps"
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == list(range(ITERATIONS)), "each step is logged once"


def test_run_killed_several_times(tmp_path, uninterrupted):
    for kill_at in (2, 2, 7, 11):
        with pytest.raises(Killed):
            toy(outer(tmp_path), kill_at)
    assert torch.equal(toy(outer(tmp_path))[0], uninterrupted)


def test_killed_between_checkpoints_resumes_at_the_last_one(tmp_path, uninterrupted, monkeypatch):
    """With rare checkpoints some logged steps are repeated, but the log contains them once."""
    now = iter(range(10_000))
    monkeypatch.setattr("dd_bench.runtime.outer_loop.time.monotonic", lambda: float(next(now)))
    with pytest.raises(Killed):
        toy(outer(tmp_path, checkpoint_seconds=4.0), kill_at=9)
    images, yielded = toy(outer(tmp_path, checkpoint_seconds=4.0))
    assert torch.equal(images, uninterrupted)
    assert 0 < yielded[0] < 9 and yielded[-1] == ITERATIONS - 1
    rows = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows == list(range(ITERATIONS))


def test_signal_writes_a_checkpoint_at_once(tmp_path, uninterrupted):
    """Also if the next checkpoint is not due for a long time."""
    with (
        interruption.handled(),
        pytest.raises(interruption.Interrupted, match="step 6 of 12 of the loop distill"),
    ):
        toy(outer(tmp_path, checkpoint_seconds=1e9), signal_at=5)
    images, yielded = toy(outer(tmp_path, checkpoint_seconds=1e9))
    assert torch.equal(images, uninterrupted) and yielded == list(range(6, ITERATIONS))


def test_finished_loop_restores_its_result(tmp_path, uninterrupted):
    toy(outer(tmp_path))
    images, yielded = toy(outer(tmp_path))
    assert torch.equal(images, uninterrupted) and yielded == []


def test_seconds_of_interrupted_attempts(tmp_path, monkeypatch):
    now = iter(range(10_000))
    monkeypatch.setattr("dd_bench.runtime.outer_loop.time.monotonic", lambda: float(next(now)))
    with pytest.raises(Killed):
        toy(outer(tmp_path), kill_at=6)
    loop = outer(tmp_path)
    toy(loop)
    assert loop.seconds_before > 5  # the clock advances by 1 at each call


def test_loops_of_one_run_are_separate(tmp_path):
    """Stages such as squeeze and recover have separate checkpoints and log lines."""
    loop = outer(tmp_path)
    toy(loop, name="squeeze", iterations=3)
    with pytest.raises(Killed):
        toy(loop, kill_at=2, name="recover")
    loop = outer(tmp_path)
    assert toy(loop, name="squeeze", iterations=3)[1] == []
    assert toy(loop, name="recover", iterations=4)[1] == [2, 3]
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(r["loop"], r["step"]) for r in rows] == [("squeeze", s) for s in range(3)] + [
        ("recover", s) for s in range(4)
    ]


@pytest.mark.parametrize("log_every", [1, 5])
def test_previews(tmp_path, log_every):
    """They are written before the first step, every N steps and after the last, also if the log is not."""
    shown = []

    class Images(Lines):
        def log_image(self, name, step, path):
            shown.append((name, step, path.name, path.read_bytes()))

    loop = OuterLoop(tmp_path, Images(), log_every=log_every, checkpoint_seconds=1e9, log_images_every=3)
    x = torch.zeros(1)
    for _ in loop.steps(7, {"x": x}, "distill", preview=lambda: b"%d" % x):  # noqa: B023
        x += 1
    assert shown == [("distill", n, f"preview-{n}.png", b"%d" % n) for n in (0, 3, 6, 7)]
    part = loop.branch("shards/class0")
    for _ in part.steps(1, {}, "class0", preview=lambda: b"of a shard"):
        pass
    loop.clean_up()
    assert (tmp_path / "preview-class0-1.png").read_bytes() == b"of a shard"
    assert len(list(tmp_path.glob("preview-*.png"))) == 6


def test_failing_preview_does_not_stop_the_run(tmp_path, messages):
    def fail():
        raise ValueError("all pixels must be finite")

    loop = OuterLoop(tmp_path, Lines(), log_every=1, checkpoint_seconds=1e9, log_images_every=1)
    assert len(list(loop.steps(2, {}, "distill", preview=fail))) == 2
    assert "no preview after step 1 of distill: all pixels must be finite" in str(messages)


def test_clean_up_removes_checkpoints_and_temporary_files(tmp_path):
    loop = outer(tmp_path)
    toy(loop)
    (tmp_path / ".distill.checkpoint.safetensors.x1y2").write_bytes(b"half")
    loop.clean_up()
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_loss_stops_the_run(tmp_path, bad):
    loop, x = outer(tmp_path, checkpoint_seconds=0.0), torch.zeros(2)
    with pytest.raises(Diverged, match=rf"loss is {bad} at step 5\. .*distill.checkpoint.*lr_img") as stopped:
        for step in loop.steps(9, {"x": x}, "distill"):
            x += 1
            loop.log(loss=torch.tensor(bad if step == 5 else 1.0), other=1.0)
    saved = torch.zeros(2)
    path = tmp_path / "distill.checkpoint.safetensors"
    assert checkpoint.restore(path, {"x": saved})[0] == 5 and saved.tolist() == [5, 5]
    assert str(path) in str(stopped.value)
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last == {"loop": "distill", "step": 5, "loss": str(bad), "other": 1.0}, "the last logged step"


def test_error_before_the_first_checkpoint_does_not_mention_one(tmp_path):
    loop, x = outer(tmp_path, checkpoint_seconds=60), torch.zeros(2)
    with pytest.raises(Diverged, match=r"loss is nan at step 1\. Try a smaller"):
        for _ in loop.steps(4, {"x": x}, "distill"):
            loop.log(loss=float("nan") if _ == 1 else 0.0)


@pytest.mark.parametrize("part", ["images", "momentum"])
def test_non_finite_state_is_not_checkpointed(tmp_path, part):
    """This holds even if the loss is finite, because overflowed momentum makes the next step fail."""
    loop, images = outer(tmp_path), torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([images], 0.0, momentum=0.9)
    with pytest.raises(Diverged, match=r"(images|optimizer\S+momentum_buffer) is not finite after step 3"):
        for step in loop.steps(9, {"images": images, "optimizer": optimizer}, "distill"):
            images.grad = torch.ones(2)
            optimizer.step()
            if step == 3:
                with torch.no_grad():
                    (images if part == "images" else optimizer.state[images]["momentum_buffer"]).fill_(
                        torch.inf
                    )
            loop.log(loss=1.0)
    path = tmp_path / "distill.checkpoint.safetensors"
    images = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([images], 0.0, momentum=0.9)
    assert checkpoint.restore(path, {"images": images, "optimizer": optimizer})[0] == 3


def test_flush_is_one_transfer(tmp_path, monkeypatch):
    """Logging synchronises with the device once per flush, for any number of pending values and steps."""
    transfers = []
    for name in ("tolist", "item", "__float__", "__bool__", "cpu", "numpy"):
        original = getattr(Tensor, name)
        monkeypatch.setattr(
            Tensor,
            name,
            lambda self, *a, _name=name, _original=original: (transfers.append(_name), _original(self, *a))[
                1
            ],
        )
    lines = Lines()
    loop = outer(tmp_path, lines, log_every=4, checkpoint_seconds=1e9)
    seen = []
    for step in loop.steps(8, {}, "distill"):
        loop.log(loss=torch.tensor(float(step)), grad=torch.tensor(2.0), lr=0.1)
        seen.append(list(transfers))
    assert seen[:4] == [[]] * 4 and seen[4:] == [["tolist"]] * 4 and transfers == ["tolist"] * 2
    assert lines.rows[3] == ("distill", 3, {"loss": 3.0, "grad": 2.0, "lr": 0.1})
    assert [step for _, step, _ in lines.rows] == list(range(8))


def test_logged_tensors_are_detached(tmp_path):
    loop, x = (
        outer(tmp_path, Lines(), log_every=100, checkpoint_seconds=1e9),
        torch.ones(3, requires_grad=True),
    )
    for _ in loop.steps(3, {"x": x}, "distill"):
        loop.log(loss=(x * 2).sum())
        assert not any(v.requires_grad for _, _, v in loop._pending)


def test_incomplete_log_line_is_deleted_on_resume(tmp_path):
    with pytest.raises(Killed):
        toy(outer(tmp_path), kill_at=3)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"loop": "distill", "st')
    toy(outer(tmp_path))
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == list(range(ITERATIONS))


def test_checkpoint_of_another_state_is_refused(tmp_path):
    toy(outer(tmp_path), iterations=2)
    with pytest.raises(RuntimeError, match=r"must contain \['x'\], got \['images', 'optimizer', 'plateau'\]"):
        next(iter(outer(tmp_path).steps(4, {"x": torch.zeros(1)}, "distill")))
