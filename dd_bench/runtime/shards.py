"""A synthetic set made in pieces, by as many processes as there are: each takes the pieces that nobody is at.

What a piece becomes depends on its name and not on who makes it or what was made before. So whoever starts the
same command again, on any machine that shares the folder, helps; and after a kill only unfinished pieces are left.
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
Piece = dict[str, Tensor]
Build = Callable[[], tuple[Piece, float, Callable[[], None]]]


class MadeMeanwhile(Exception):
    """Another process has put the pieces together and removed them."""


def make_all(
    folder: Path, builds: Mapping[str, Build], over: Callable[[], bool]
) -> tuple[dict[str, Piece], float]:
    """Returns all pieces by name, and the seconds that others and killed attempts have spent on them.

    Args:
        folder: where finished pieces lie, `<name>.safetensors`.
        builds: makes a piece, says how many seconds killed attempts at it have taken, and how to tidy up after it.
        over: whether the whole is there, and the pieces are gone.

    Raises:
        MadeMeanwhile: it is.
        ValueError: a piece on the disk is damaged.
    """
    ours: dict[str, float] = {}
    for wait in (False, True):  # first what nobody is at, then what others have not finished
        for number, (name, build) in enumerate(builds.items()):
            if over():
                raise MadeMeanwhile
            before = _make(folder / f"{name}.safetensors", build, wait, over)
            if before is not None:
                ours[name] = before
                _log.info("piece %d of %d is there: %s", number + 1, len(builds), name)
    pieces, spent = {}, 0.0
    for name in builds:
        pieces[name], seconds = _load(folder / f"{name}.safetensors", over)
        spent += ours.get(name, seconds)
    return pieces, spent


def _make(path: Path, build: Build, wait: bool, over: Callable[[], bool]) -> float | None:
    """Makes a piece unless it is there, or another process is at it and we do not wait.

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
        raise MadeMeanwhile from error
    try:
        if over():
            raise MadeMeanwhile
        if path.exists():
            return None
        began = time.monotonic()
        piece, before, tidy = build()
        stored = {name: t.detach().cpu().contiguous() for name, t in piece.items()}
        seconds = str(before + time.monotonic() - began)
        write_atomic(path, save(stored, metadata={"seconds": seconds}))
        tidy()  # only now: a kill before this costs nothing
        return before
    finally:
        lock.release()


def _load(path: Path, over: Callable[[], bool]) -> tuple[Piece, float]:
    try:
        with safe_open(path, framework="pt") as file:
            seconds = float(file.metadata()["seconds"])
            return {name: file.get_tensor(name) for name in file.keys()}, seconds  # noqa: SIM118  not a dict
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        if over():
            raise MadeMeanwhile from error
        raise ValueError(f"the piece {path} is damaged ({error}). To make it anew: rm {path}") from error
