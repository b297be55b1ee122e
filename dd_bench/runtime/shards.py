"""Build a synthetic set in shards by any number of processes. Each process builds shards that no other process builds.

The content of a shard depends only on its name, not on the process or on the order. Starting the same command again, on
any machine that shares the folder, adds a process. After an interruption, only unfinished shards are built again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dd_bench.runtime.files import write_atomic

_log = logging.getLogger(__name__)
Shard = dict[str, Tensor]
Build = Callable[[], tuple[Shard, float, Callable[[], None]]]


class AlreadyBuilt(Exception):
    """Another process has combined the shards and removed them."""


def build_shards(
    folder: Path, builds: Mapping[str, Build], is_done: Callable[[], bool]
) -> tuple[dict[str, Shard], float]:
    """Build the missing shards and return all shards by name.

    Args:
        folder: where finished shards are stored as `<name>.safetensors`.
        builds: function of each shard, by name. It returns the shard, the seconds of earlier, interrupted attempts, and
            a function that removes temporary files.
        is_done: returns whether the combined result exists. The shards may then have been removed.

    Returns:
        The shards, and the seconds that other processes and interrupted attempts have spent on them.

    Raises:
        AlreadyBuilt: the combined result exists.
        ValueError: a stored shard is damaged.
    """
    earlier: dict[str, float] = {}  # of the shards built by this process
    # first the shards that no other process is building, then those that other processes have not finished
    for wait in (False, True):
        for number, (name, build) in enumerate(builds.items()):
            if is_done():
                raise AlreadyBuilt
            seconds = _build(folder / f"{name}.safetensors", build, wait, is_done)
            if seconds is not None:
                earlier[name] = seconds
                _log.info("shard %d of %d is built: %s", number + 1, len(builds), name)
    shards, total = {}, 0.0
    for name in builds:
        shards[name], stored_seconds = _load(folder / f"{name}.safetensors", is_done)
        total += earlier.get(name, stored_seconds)
    return shards, total


def _build(path: Path, build: Build, wait: bool, is_done: Callable[[], bool]) -> float | None:
    """Build a shard, unless it exists, or another process builds it and `wait` is False.

    Returns:
        The seconds of interrupted attempts, or None if this process did not build the shard.
    """
    if path.exists():
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        return None
    except FileNotFoundError as error:  # the folder was removed while this process waited
        raise AlreadyBuilt from error
    try:
        if is_done():
            raise AlreadyBuilt
        if path.exists():
            return None
        start = time.monotonic()
        shard, earlier, clean_up = build()
        stored = {name: t.detach().cpu().contiguous() for name, t in shard.items()}
        seconds = str(earlier + time.monotonic() - start)
        write_atomic(path, save(stored, metadata={"seconds": seconds}))
        clean_up()  # after the shard is stored, so that an interruption loses no work
        return earlier
    finally:
        lock.release()


def _load(path: Path, is_done: Callable[[], bool]) -> tuple[Shard, float]:
    try:
        with safe_open(path, framework="pt") as file:
            seconds = float(file.metadata()["seconds"])
            return {name: file.get_tensor(name) for name in file.keys()}, seconds  # noqa: SIM118  not a dict
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        if is_done():
            raise AlreadyBuilt from error
        raise ValueError(
            f"the shard {path} is damaged ({error}). Delete it and run the command again: rm {path}"
        ) from error
