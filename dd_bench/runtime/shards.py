"""A synthetic set made in shards, by as many processes as there are: each takes the shards that nobody is at.

What a shard becomes depends on its name and not on who makes it or what was made before. So whoever starts the
same command again, on any machine that shares the folder, helps; and after a kill only unfinished shards are left.
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
    """Another process has put the shards together and removed them."""


def build_shards(
    folder: Path, builds: Mapping[str, Build], is_done: Callable[[], bool]
) -> tuple[dict[str, Shard], float]:
    """Returns all shards by name, and the seconds that others and killed attempts have spent on them.

    Args:
        folder: where finished shards lie, `<name>.safetensors`.
        builds: makes a shard, says how many seconds killed attempts at it have taken, and how to tidy up after it.
        is_done: whether the whole is there, and the shards are gone.

    Raises:
        AlreadyBuilt: it is.
        ValueError: a shard on the disk is damaged.
    """
    ours: dict[str, float] = {}
    for wait in (False, True):  # first what nobody is at, then what others have not finished
        for number, (name, build) in enumerate(builds.items()):
            if is_done():
                raise AlreadyBuilt
            before = _make(folder / f"{name}.safetensors", build, wait, is_done)
            if before is not None:
                ours[name] = before
                _log.info("shard %d of %d is there: %s", number + 1, len(builds), name)
    shards, spent = {}, 0.0
    for name in builds:
        shards[name], seconds = _load(folder / f"{name}.safetensors", is_done)
        spent += ours.get(name, seconds)
    return shards, spent


def _make(path: Path, build: Build, wait: bool, is_done: Callable[[], bool]) -> float | None:
    """Makes a shard unless it is there, or another process is at it and we do not wait.

    Returns:
        The seconds that killed attempts at it had taken, or None if we did not make it.
    """
    if path.exists():
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        return None
    except FileNotFoundError as error:  # the folder went while we waited
        raise AlreadyBuilt from error
    try:
        if is_done():
            raise AlreadyBuilt
        if path.exists():
            return None
        began = time.monotonic()
        shard, before, tidy = build()
        stored = {name: t.detach().cpu().contiguous() for name, t in shard.items()}
        seconds = str(before + time.monotonic() - began)
        write_atomic(path, save(stored, metadata={"seconds": seconds}))
        tidy()  # only now: a kill before this costs nothing
        return before
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
        raise ValueError(f"the shard {path} is damaged ({error}). To make it anew: rm {path}") from error
