"""Content-addressed cache of what takes long to build: teachers, expert buffers.

An entry is a folder named by the hash of everything it depends on. It appears whole or not at all; a second run
that wants the same entry waits for the first one and then reads it.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dd_bench import NUMBERS_VERSION
from dd_bench.runtime import distributed
from dd_bench.runtime.files import canonical, content_key, write_atomic

_log = logging.getLogger(__name__)
_ENTRY = "entry.json"


class Cache:
    """Entries under one folder.

    Attributes:
        seconds: what building each entry used so far has cost, whoever built it and when, by folder name.
        spent: seconds that this object has spent building.
    """

    def __init__(self, root: Path):
        """Takes the folder; it is created when the first entry is."""
        self.root = root
        self.seconds: dict[str, float] = {}
        self.spent = 0.0

    def entry(self, kind: str, depends_on: dict[str, Any], build: Callable[[Path], float | None]) -> Path:
        """Returns the folder of the entry, building it first if it is missing.

        Args:
            kind: e.g. "teacher", the first part of the folder's name.
            depends_on: everything the content depends on, as JSON; the version of the numbers is added.
            build: fills the folder it is given, and may return the seconds that earlier, killed attempts put
                into it. The folder stays between attempts, so a builder may keep checkpoints in it and resume.

        Raises:
            ValueError: the entry is damaged.
            Exception: whatever `build` raises; the entry is then still missing, and the next run tries again.
        """
        identity = _identity(kind, depends_on)
        folder = self._folder(identity)
        if distributed.world_size() > 1:
            self._build_together(folder, identity, build)
        elif not folder.exists():
            with locked(folder.with_name(folder.name + ".lock")):
                if not folder.exists():
                    self._build(folder, identity, build)
        try:
            self.seconds[folder.name] = float(json.loads((folder / _ENTRY).read_text())["seconds"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"cache entry {folder} is damaged ({error!r}). To build it anew: rm -r {folder}"
            ) from error
        return folder

    def has(self, kind: str, depends_on: dict[str, Any]) -> bool:
        """Whether the entry is there, whole."""
        return self._folder(_identity(kind, depends_on)).exists()

    def _folder(self, identity: dict[str, Any]) -> Path:
        return self.root / f"{identity['kind']}-{content_key(identity)}"

    def _build(self, folder: Path, identity: dict[str, Any], build: Callable[[Path], float | None]) -> None:
        partial = folder.with_name(folder.name + ".partial")
        partial.mkdir(exist_ok=True)
        began = time.monotonic()
        try:
            before = build(partial) or 0.0
        finally:
            self.spent += time.monotonic() - began
        self._publish(partial, folder, identity, before + time.monotonic() - began)

    def _publish(self, partial: Path, folder: Path, identity: dict[str, Any], seconds: float) -> None:
        entry = {"depends_on": identity, "seconds": round(seconds, 3)}
        write_atomic(partial / _ENTRY, (canonical(entry, indent=2) + "\n").encode())
        partial.replace(folder)

    def _build_together(
        self, folder: Path, identity: dict[str, Any], build: Callable[[Path], float | None]
    ) -> None:
        """Builds an entry by several processes, if it is missing: the first one holds the lock, and writes."""
        lock = locked(folder.with_name(folder.name + ".lock")) if distributed.rank() == 0 else nullcontext()
        with lock:
            if distributed.broadcast(folder.exists()):
                return
            partial = folder.with_name(folder.name + ".partial")
            if distributed.rank() == 0:
                partial.mkdir(exist_ok=True)
            began = time.monotonic()
            with distributed.private_copy(partial) as mine:
                before = build(mine) or 0.0
                self.spent += time.monotonic() - began
                if distributed.rank() == 0:
                    self._publish(partial, folder, identity, before + time.monotonic() - began)


def _identity(kind: str, depends_on: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "numbers": NUMBERS_VERSION, **depends_on}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file `path`, waiting for another process that holds it; a dead process holds nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(path))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.info("another run holds %s; waiting for it", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def publish(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Creates `folder` with what `fill` writes, whole or not at all.

    Raises:
        FileExistsError: there is something at `folder` already; it is left as it is.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists. Remove it first, or choose another place")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        fill(scratch)
        scratch.chmod(0o755)
        scratch.replace(folder)
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if isinstance(error, OSError) and folder.exists():
            raise FileExistsError(
                f"{folder} was made by another run meanwhile; it is left as it is"
            ) from error
        raise
    return folder
