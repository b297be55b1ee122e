"""The outer loop: resumed it ends with the same bytes, it stops where numbers end, and it logs every step once."""

import json

import pytest
import torch
from torch import Tensor

from dd_bench.runtime import checkpoint, seeding
from dd_bench.runtime.loggers import Jsonl, Logger
from dd_bench.runtime.outer_loop import Diverged, OuterLoop

ITERATIONS = 12


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


class Lines(Logger):
    """Keeps what it is given."""

    def __init__(self):
        self.rows, self.resumed = [], []

    def log(self, loop, step, values):
        self.rows.append((loop, step, values))

    def resume(self, loop, step):
        self.resumed.append((loop, step))


def outer(folder, logger=None, log_every=1, checkpoint_seconds=0.0):
    logger = logger or Jsonl(folder / "log.jsonl")
    return OuterLoop(folder, logger, log_every=log_every, checkpoint_seconds=checkpoint_seconds)


def toy(loop, kill_at=None, iterations=ITERATIONS, name="distill"):
    """A method in small: momentum, a scheduler that looks at the loss, and noise that depends on the step alone."""
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
        optimizer.step()
        plateau.step(float(loss.detach()))
        loop.log(loss=loss)
    return images.detach(), yielded


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return toy(outer(tmp_path_factory.mktemp("whole")))[0]


@pytest.mark.parametrize("kill_at", [0, 1, 5, ITERATIONS - 1])
@pytest.mark.parametrize("log_every", [1, 5])
def test_killed_and_resumed_is_bitwise_the_uninterrupted_run(tmp_path, whole, kill_at, log_every):
    with pytest.raises(Killed):
        toy(outer(tmp_path, log_every=log_every), kill_at)
    images, yielded = toy(outer(tmp_path, log_every=log_every))
    assert torch.equal(images, whole)
    assert yielded == list(range(kill_at, ITERATIONS)), "exactly the remaining steps"
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == list(range(ITERATIONS)), "each step is logged once"


def test_killed_again_and_again(tmp_path, whole):
    for kill_at in (2, 2, 7, 11):
        with pytest.raises(Killed):
            toy(outer(tmp_path), kill_at)
    assert torch.equal(toy(outer(tmp_path))[0], whole)


def test_killed_between_checkpoints_goes_back_to_the_last_one(tmp_path, whole, monkeypatch):
    """With a slow checkpoint clock some logged steps are done again, and the log shows them once."""
    now = iter(range(10_000))
    monkeypatch.setattr("dd_bench.runtime.outer_loop.time.monotonic", lambda: float(next(now)))
    with pytest.raises(Killed):
        toy(outer(tmp_path, checkpoint_seconds=4.0), kill_at=9)
    images, yielded = toy(outer(tmp_path, checkpoint_seconds=4.0))
    assert torch.equal(images, whole)
    assert 0 < yielded[0] < 9 and yielded[-1] == ITERATIONS - 1
    rows = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows == list(range(ITERATIONS))


def test_a_finished_loop_restores_its_end(tmp_path, whole):
    toy(outer(tmp_path))
    images, yielded = toy(outer(tmp_path))
    assert torch.equal(images, whole) and yielded == []


def test_seconds_of_killed_parts_are_kept(tmp_path, monkeypatch):
    now = iter(range(10_000))
    monkeypatch.setattr("dd_bench.runtime.outer_loop.time.monotonic", lambda: float(next(now)))
    with pytest.raises(Killed):
        toy(outer(tmp_path), kill_at=6)
    loop = outer(tmp_path)
    toy(loop)
    assert loop.seconds_before > 5  # of the clock that ticks once a look


def test_two_loops_of_one_run_keep_apart(tmp_path):
    """Stages such as squeeze and recover each have their checkpoint and their lines."""
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


def test_forget_removes_checkpoints_and_what_kills_left(tmp_path):
    loop = outer(tmp_path)
    toy(loop)
    (tmp_path / ".distill.checkpoint.safetensors.x1y2").write_bytes(b"half")
    loop.clean_up()
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, bad):
    loop, x = outer(tmp_path, checkpoint_seconds=0.0), torch.zeros(2)
    with pytest.raises(Diverged, match=rf"loss is {bad} at step 5\. .*distill.checkpoint.*lr_img") as stopped:
        for step in loop.steps(9, {"x": x}, "distill"):
            x += 1
            loop.log(loss=torch.tensor(bad if step == 5 else 1.0), other=1.0)
    kept = torch.zeros(2)
    path = tmp_path / "distill.checkpoint.safetensors"
    assert checkpoint.restore(path, {"x": kept})[0] == 5 and kept.tolist() == [5, 5]
    assert str(path) in str(stopped.value)
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last == {"loop": "distill", "step": 5, "loss": str(bad), "other": 1.0}, (
        "the log shows what happened"
    )


def test_divergence_before_the_first_checkpoint_promises_none(tmp_path):
    loop, x = outer(tmp_path, checkpoint_seconds=60), torch.zeros(2)
    with pytest.raises(Diverged, match=r"loss is nan at step 1\. Try a smaller"):
        for _ in loop.steps(4, {"x": x}, "distill"):
            loop.log(loss=float("nan") if _ == 1 else 0.0)


@pytest.mark.parametrize("part", ["images", "momentum"])
def test_a_state_that_is_not_finite_is_never_checkpointed(tmp_path, part):
    """Even when the loss still looks well: momentum that overflowed ruins the next step."""
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
    again = torch.zeros(2, requires_grad=True)
    assert (
        checkpoint.restore(path, {"images": again, "optimizer": torch.optim.SGD([again], 0.0, momentum=0.9)})[
            0
        ]
        == 3
    )


def test_a_flush_is_one_transfer(tmp_path, monkeypatch):
    """Logging waits for the device once a flush, however many values and steps are pending."""
    transfers = []
    for name in ("tolist", "item", "__float__", "__bool__", "cpu", "numpy"):
        plain = getattr(Tensor, name)
        monkeypatch.setattr(
            Tensor,
            name,
            lambda self, *a, _name=name, _plain=plain: (transfers.append(_name), _plain(self, *a))[1],
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


def test_logged_tensors_hold_no_graph(tmp_path):
    loop, x = (
        outer(tmp_path, Lines(), log_every=100, checkpoint_seconds=1e9),
        torch.ones(3, requires_grad=True),
    )
    for _ in loop.steps(3, {"x": x}, "distill"):
        loop.log(loss=(x * 2).sum())
        assert not any(v.requires_grad for _, _, v in loop._pending)


def test_a_broken_line_of_the_log_is_dropped(tmp_path):
    with pytest.raises(Killed):
        toy(outer(tmp_path), kill_at=3)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"loop": "distill", "st')
    toy(outer(tmp_path))
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == list(range(ITERATIONS))


def test_another_state_under_the_same_name_is_refused(tmp_path):
    toy(outer(tmp_path), iterations=2)
    with pytest.raises(
        RuntimeError, match=r"holds \['images', 'optimizer', 'plateau'\], the method carries \['x'\]"
    ):
        next(iter(outer(tmp_path).steps(4, {"x": torch.zeros(1)}, "distill")))
