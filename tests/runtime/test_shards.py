"""Pieces: made once whoever makes them, resumed, shared between processes."""

import threading

import pytest
import torch
from filelock import FileLock

from dd_bench.runtime.shards import AlreadyBuilt, build_shards


def builds(made, names="abc"):
    def build(name):
        made.append(name)
        return {"x": torch.tensor([ord(name)])}, 0.0, lambda: None

    return {name: (lambda name=name: build(name)) for name in names}


def never():
    return False


def test_each_is_made_once(tmp_path):
    made = []
    first, _ = build_shards(tmp_path, builds(made), never)
    second, _ = build_shards(tmp_path, builds(made), never)
    assert made == ["a", "b", "c"]
    assert {k: v["x"].item() for k, v in first.items()} == {k: v["x"].item() for k, v in second.items()}
    assert list(second) == ["a", "b", "c"]


def test_a_kill_costs_the_piece_that_was_being_made(tmp_path):
    made = []

    def killed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_shards(tmp_path, builds(made) | {"b": killed}, never)
    build_shards(tmp_path, builds(made), never)
    assert made == ["a", "b", "c"]


def test_what_another_is_at_is_left_to_it_and_waited_for(tmp_path):
    """The other holds `a`: we make b and c first, and take a when it is there."""
    made, theirs = [], FileLock(f"{tmp_path / 'a.safetensors'}.lock", thread_local=False)
    theirs.acquire()
    result = {}
    thread = threading.Thread(target=lambda: result.update(build_shards(tmp_path, builds(made), never)[0]))
    thread.start()
    while len(made) < 2:
        pass
    assert made == ["b", "c"]
    theirs.release()  # it died without making it
    thread.join(20)
    assert made == ["b", "c", "a"] and set(result) == {"a", "b", "c"}


def test_seconds_that_others_spent_are_counted(tmp_path):
    build_shards(tmp_path, {"a": lambda: ({"x": torch.zeros(1)}, 50.0, lambda: None)}, never)
    assert build_shards(tmp_path, builds([], "a"), never)[1] == pytest.approx(50, abs=1)


def test_so_are_those_of_killed_attempts_at_our_own(tmp_path):
    _, spent = build_shards(tmp_path, {"a": lambda: ({"x": torch.zeros(1)}, 30.0, lambda: None)}, never)
    assert spent == 30.0, "what we take now is on our own clock"


def test_the_whole_is_there_already(tmp_path):
    with pytest.raises(AlreadyBuilt):
        build_shards(tmp_path, builds([]), lambda: True)


def test_a_damaged_piece_says_what_to_remove(tmp_path):
    build_shards(tmp_path, builds([]), never)
    (tmp_path / "b.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"b\.safetensors is damaged .* rm "):
        build_shards(tmp_path, builds([]), never)
