"""The cache: an entry is built once, by one process, and is there whole or not at all."""

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
    if how == "dies":
        (root.parent / "began").touch()
        time.sleep(60)
    time.sleep(0.4)
    (folder / "value").write_text("whole")
print((Cache(root).entry("teacher", {"index": 0}, build) / "value").read_text())
"""


@pytest.fixture
def builder(fork):
    return lambda root, how="lives": fork(BUILDER, root=str(root), how=how)


def wait_for(path: Path) -> None:
    for _ in range(1000):
        if path.exists():
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} did not appear")


def test_processes_at_once_build_one_entry_once(tmp_path, builder):
    processes = [builder(tmp_path / "cache") for _ in range(3)]
    assert [p.wait(timeout=60) for p in processes] == [0] * 3
    assert (tmp_path / "printed.txt").read_text() == "whole\n" * 3
    assert len((tmp_path / "built.txt").read_text().splitlines()) == 1


def test_a_builder_that_is_killed_leaves_nothing_visible(tmp_path, builder):
    root = tmp_path / "cache"
    dying = builder(root, "dies")
    wait_for(tmp_path / "began")
    waiting = builder(root)  # while the lock is held
    dying.kill()
    assert dying.wait() == -9 and waiting.wait(timeout=60) == 0
    assert (tmp_path / "printed.txt").read_text() == "whole\n", "a dead process holds no lock"
    assert len((tmp_path / "built.txt").read_text().splitlines()) == 2
    assert [p.name for p in root.iterdir() if p.is_dir()] == [e.name for e in entries(root)]


def entries(root: Path) -> list[Path]:
    return [p.parent for p in root.glob("*/entry.json")]


def test_a_builder_that_raises_leaves_nothing_visible(tmp_path):
    cache = Cache(tmp_path)

    def fails(folder):
        (folder / "half").touch()
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        cache.entry("teacher", {"index": 1}, fails)
    assert entries(tmp_path) == [] and cache.seconds == {}
    folder = cache.entry("teacher", {"index": 1}, lambda f: (f / "value").write_text("x"))
    assert (folder / "half").exists(), "what an attempt left stays for the next: it may resume"
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == [folder.name]


def test_an_entry_says_what_it_is_and_what_it_cost(tmp_path):
    folder = Cache(tmp_path).entry("buffer", {"index": 2}, lambda f: time.sleep(0.05))
    entry = json.loads((folder / "entry.json").read_text())
    assert entry["depends_on"] == {"kind": "buffer", "index": 2, "numbers": 1} and entry["seconds"] >= 0.05
    another = Cache(tmp_path)
    another.entry("buffer", {"index": 2}, lambda f: pytest.fail("built twice"))
    assert another.seconds == {folder.name: entry["seconds"]}, "the price is told to whoever uses the entry"


def test_the_price_of_earlier_attempts_is_added(tmp_path):
    """A builder that resumed says what was done before; one that says nothing has done all of it now."""

    def price(index, before):
        cache = Cache(tmp_path)
        folder = cache.entry("buffer", {"index": index}, lambda f: time.sleep(0.05) or before)
        (told,) = cache.seconds.values()
        assert json.loads((folder / "entry.json").read_text())["seconds"] == told
        return told

    assert 1000.05 <= price(0, 1000.0) < 1030
    assert 0.05 <= price(1, None) < 30 and 0.05 <= price(2, 0.0) < 30


def test_what_it_depends_on_is_its_name(tmp_path):
    cache = Cache(tmp_path)
    touch = lambda f: None  # noqa: E731
    a = cache.entry("teacher", {"index": 0, "lr": 0.1}, touch)
    assert cache.entry("teacher", {"lr": 0.1, "index": 0}, touch) == a
    assert cache.entry("teacher", {"index": 0, "lr": 0.2}, touch) != a
    assert cache.entry("expert", {"index": 0, "lr": 0.1}, touch) != a


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"seconds": "soon"}'])
def test_a_damaged_entry_says_how_to_build_it_anew(tmp_path, content):
    cache = Cache(tmp_path)
    folder = cache.entry("teacher", {}, lambda f: None)
    (folder / "entry.json").unlink()
    if content is not None:
        (folder / "entry.json").write_text(content)
    with pytest.raises(ValueError, match=f"cache entry {folder} is damaged.*rm -r {folder}"):
        cache.entry("teacher", {}, lambda f: None)


def test_a_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / "a.lock"):
        raise KeyError
    with locked(tmp_path / "a.lock"):
        pass


class TestPublish:
    def test_whole(self, tmp_path):
        folder = publish(tmp_path / "new" / "set", lambda f: (f / "a").write_text("1"))
        assert [p.name for p in folder.iterdir()] == ["a"] and [p.name for p in folder.parent.iterdir()] == [
            "set"
        ]

    def test_or_not_at_all(self, tmp_path):
        def fails(folder):
            (folder / "a").write_text("1")
            raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space left"):
            publish(tmp_path / "set", fails)
        assert list(tmp_path.iterdir()) == []

    def test_what_is_there_stays(self, tmp_path):
        (tmp_path / "set").mkdir()
        with pytest.raises(FileExistsError, match="Remove it first"):
            publish(tmp_path / "set", lambda f: None)

    def test_another_was_first(self, tmp_path):
        """Between the look and the move."""

        def slow(folder):
            (folder / "a").write_text("mine")
            (tmp_path / "set").mkdir()
            (tmp_path / "set" / "a").write_text("theirs")

        with pytest.raises(FileExistsError, match="made by another run"):
            publish(tmp_path / "set", slow)
        assert (tmp_path / "set" / "a").read_text() == "theirs" and len(list(tmp_path.iterdir())) == 1
