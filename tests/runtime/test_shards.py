"""Shards: each is built once, resumed, and shared between processes."""

import threading

import pytest
import torch
from filelock import FileLock

from dd_bench.runtime.shards import AlreadyBuilt, build_shards


def builds(built, names="abc"):
    def build(name):
        built.append(name)
        return {"x": torch.tensor([ord(name)])}, 0.0, lambda: None

    return {name: (lambda name=name: build(name)) for name in names}


def never():
    return False


def test_each_shard_is_built_once(tmp_path):
    built = []
    first, _ = build_shards(tmp_path, builds(built), never)
    second, _ = build_shards(tmp_path, builds(built), never)
    assert built == ["a", "b", "c"]
    assert {k: v["x"].item() for k, v in first.items()} == {k: v["x"].item() for k, v in second.items()}
    assert list(second) == ["a", "b", "c"]


def test_finished_shards_are_not_rebuilt_after_an_interruption(tmp_path):
    built = []

    def killed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_shards(tmp_path, builds(built) | {"b": killed}, never)
    build_shards(tmp_path, builds(built), never)
    assert built == ["a", "b", "c"]


def test_shards_locked_by_another_process_are_built_last(tmp_path):
    """Another process holds the lock of `a`: b and c are built first, and a after the lock is released."""
    built, other_lock = [], FileLock(f"{tmp_path / 'a.safetensors'}.lock", thread_local=False)
    other_lock.acquire()
    result = {}
    thread = threading.Thread(target=lambda: result.update(build_shards(tmp_path, builds(built), never)[0]))
    thread.start()
    while len(built) < 2:
        pass
    assert built == ["b", "c"]
    other_lock.release()  # without a shard, as after a crash
    thread.join(20)
    assert built == ["b", "c", "a"] and set(result) == {"a", "b", "c"}


def test_seconds_of_other_processes(tmp_path):
    build_shards(tmp_path, {"a": lambda: ({"x": torch.zeros(1)}, 50.0, lambda: None)}, never)
    assert build_shards(tmp_path, builds([], "a"), never)[1] == pytest.approx(50, abs=1)


def test_seconds_of_interrupted_attempts(tmp_path):
    _, seconds = build_shards(tmp_path, {"a": lambda: ({"x": torch.zeros(1)}, 30.0, lambda: None)}, never)
    assert seconds == 30.0, "without the time of this process"


def test_combined_result_exists(tmp_path):
    with pytest.raises(AlreadyBuilt):
        build_shards(tmp_path, builds([]), lambda: True)


def test_error_for_a_damaged_shard_contains_the_command_to_remove_it(tmp_path):
    build_shards(tmp_path, builds([]), never)
    (tmp_path / "b.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"b\.safetensors is damaged .* rm "):
        build_shards(tmp_path, builds([]), never)
