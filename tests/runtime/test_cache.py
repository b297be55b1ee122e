"""The cache: an entry is built once, by one process, and appears atomically."""

import json
import time
from pathlib import Path

import pytest

from dd_bench.runtime.cache import Cache, locked, publish

BUILDER = """
import os, time
from pathlib import Path
from dd_bench.runtime.cache import Cache
root = Path(root)
def build(folder):
    with (root.parent / "built.txt").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    (folder / "half").write_text("half")
    if mode == "hangs":
        (root.parent / "started").touch()
        time.sleep(60)
    time.sleep(0.4)
    (folder / "value").write_text("whole")
print((Cache(root).entry("teacher", {"index": 0}, build) / "value").read_text())
"""


@pytest.fixture
def builder(fork):
    return lambda root, mode="succeeds": fork(BUILDER, root=str(root), mode=mode)


def wait_for(path: Path) -> None:
    for _ in range(1000):
        if path.exists():
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} did not appear")


def test_concurrent_processes_build_an_entry_once(tmp_path, builder):
    processes = [builder(tmp_path / "cache") for _ in range(3)]
    assert [p.wait(timeout=60) for p in processes] == [0] * 3
    assert (tmp_path / "printed.txt").read_text() == "whole\n" * 3
    assert len((tmp_path / "built.txt").read_text().splitlines()) == 1


def test_killed_builder_leaves_no_entry(tmp_path, builder):
    root = tmp_path / "cache"
    killed = builder(root, "hangs")
    wait_for(tmp_path / "started")
    waiting = builder(root)  # while the lock is held
    killed.kill()
    assert killed.wait() == -9 and waiting.wait(timeout=60) == 0
    assert (tmp_path / "printed.txt").read_text() == "whole\n", "the lock ends with its process"
    assert len((tmp_path / "built.txt").read_text().splitlines()) == 2
    assert [p.name for p in root.iterdir() if p.is_dir()] == [e.name for e in entries(root)]


def entries(root: Path) -> list[Path]:
    return [p.parent for p in root.glob("*/entry.json")]


def test_failed_builder_leaves_no_entry(tmp_path):
    cache = Cache(tmp_path)

    def fails(folder):
        (folder / "half").touch()
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        cache.entry("teacher", {"index": 1}, fails)
    assert entries(tmp_path) == [] and cache.seconds == {}
    folder = cache.entry("teacher", {"index": 1}, lambda f: (f / "value").write_text("x"))
    assert (folder / "half").exists(), "files of a failed attempt persist, so the next one can resume"
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == [folder.name]


def test_entry_records_its_identity_and_build_time(tmp_path):
    folder = Cache(tmp_path).entry("buffer", {"index": 2}, lambda f: time.sleep(0.05))
    entry = json.loads((folder / "entry.json").read_text())
    assert entry["depends_on"] == {"kind": "buffer", "index": 2, "numbers": 1} and entry["seconds"] >= 0.05
    second = Cache(tmp_path)
    second.entry("buffer", {"index": 2}, lambda f: pytest.fail("built twice"))
    assert second.seconds == {folder.name: entry["seconds"]}, "build time of an earlier run"


def test_time_of_earlier_attempts_is_added(tmp_path):
    """A resumed builder returns the seconds of earlier attempts; None means zero."""

    def build_seconds(index, earlier):
        cache = Cache(tmp_path)
        folder = cache.entry("buffer", {"index": index}, lambda f: time.sleep(0.05) or earlier)
        (seconds,) = cache.seconds.values()
        assert json.loads((folder / "entry.json").read_text())["seconds"] == seconds
        return seconds

    assert 1000.05 <= build_seconds(0, 1000.0) < 1030
    assert 0.05 <= build_seconds(1, None) < 30 and 0.05 <= build_seconds(2, 0.0) < 30


def test_name_is_determined_by_kind_and_dependencies(tmp_path):
    cache = Cache(tmp_path)
    touch = lambda f: None  # noqa: E731
    a = cache.entry("teacher", {"index": 0, "lr": 0.1}, touch)
    assert cache.entry("teacher", {"lr": 0.1, "index": 0}, touch) == a
    assert cache.entry("teacher", {"index": 0, "lr": 0.2}, touch) != a
    assert cache.entry("expert", {"index": 0, "lr": 0.1}, touch) != a


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"seconds": "soon"}'])
def test_error_for_a_damaged_entry_contains_the_command_to_rebuild_it(tmp_path, content):
    cache = Cache(tmp_path)
    folder = cache.entry("teacher", {}, lambda f: None)
    (folder / "entry.json").unlink()
    if content is not None:
        (folder / "entry.json").write_text(content)
    with pytest.raises(ValueError, match=f"cache entry {folder} is damaged.*rm -r {folder}"):
        cache.entry("teacher", {}, lambda f: None)


def test_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / "a.lock"):
        raise KeyError
    with locked(tmp_path / "a.lock"):
        pass


class TestPublish:
    def test_success(self, tmp_path):
        folder = publish(tmp_path / "new" / "set", lambda f: (f / "a").write_text("1"))
        assert [p.name for p in folder.iterdir()] == ["a"] and [p.name for p in folder.parent.iterdir()] == [
            "set"
        ]

    def test_failure_leaves_nothing(self, tmp_path):
        def fails(folder):
            (folder / "a").write_text("1")
            raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space left"):
            publish(tmp_path / "set", fails)
        assert list(tmp_path.iterdir()) == []

    def test_existing_folder_is_not_changed(self, tmp_path):
        (tmp_path / "set").mkdir()
        with pytest.raises(FileExistsError, match="Remove it first"):
            publish(tmp_path / "set", lambda f: None)

    def test_folder_created_by_another_run_during_fill(self, tmp_path):

        def fill(folder):
            (folder / "a").write_text("this run")
            (tmp_path / "set").mkdir()
            (tmp_path / "set" / "a").write_text("other run")

        with pytest.raises(FileExistsError, match="created by another run"):
            publish(tmp_path / "set", fill)
        assert (tmp_path / "set" / "a").read_text() == "other run" and len(list(tmp_path.iterdir())) == 1
