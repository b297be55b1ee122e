"""Content-addressed cache of expensive results, such as teachers and expert buffers.

An entry is a folder whose name contains the hash of everything that the entry depends on. It appears only when it is
complete. A second run that needs the same entry waits for the first run and then reads the result.
"""

from __future__ import annotations

import json
import logging
import os
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
from dd_bench.runtime.files import canonical, content_key, expand_home, write_atomic

_log = logging.getLogger(__name__)
_ENTRY = "entry.json"


def user_folder() -> Path:
    """Return the folder of files that all projects of a user share: `$DD_BENCH_HOME` or `~/.cache/dd_bench`.

    Raises:
        FileNotFoundError: the folder is in the home folder of the user, and this folder is not known.
    """
    return expand_home(os.environ.get("DD_BENCH_HOME") or "~/.cache/dd_bench", "DD_BENCH_HOME=FOLDER")


class Cache:
    """A cache in one folder.

    Attributes:
        seconds: build time of each entry used so far, by folder name, even if an earlier run built the entry.
        spent: seconds that this object has spent on building entries.
    """

    def __init__(self, root: Path):
        """Create a cache in `root`. The folder is created with the first entry."""
        self.root = root
        self.seconds: dict[str, float] = {}
        self.spent = 0.0

    def entry(self, kind: str, depends_on: dict[str, Any], build: Callable[[Path], float | None]) -> Path:
        """Return the folder of the entry. Build the entry first if it is missing.

        Args:
            kind: e.g. "teacher", the first part of the folder's name.
            depends_on: everything that the content depends on, JSON-serialisable. `NUMBERS_VERSION` is added to it.
            build: function that writes the content into the given folder. It can return the seconds spent by earlier,
                interrupted attempts. The folder persists between attempts, so `build` can store checkpoints in it.

        Raises:
            ValueError: the entry is damaged.
            Exception: any exception of `build`. The entry is then still missing, and the next run builds it again.
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
                f"cache entry {folder} is damaged ({error!r}). Delete it and run the command again: rm -r {folder}"
            ) from error
        return folder

    def has(self, kind: str, depends_on: dict[str, Any]) -> bool:
        """Return whether the entry exists."""
        return self._folder(_identity(kind, depends_on)).exists()

    def _folder(self, identity: dict[str, Any]) -> Path:
        return self.root / f"{identity['kind']}-{content_key(identity)}"

    def _build(self, folder: Path, identity: dict[str, Any], build: Callable[[Path], float | None]) -> None:
        partial = folder.with_name(folder.name + ".partial")
        partial.mkdir(exist_ok=True)
        start = time.monotonic()
        try:
            earlier = build(partial) or 0.0
        finally:
            self.spent += time.monotonic() - start
        self._publish(partial, folder, identity, earlier + time.monotonic() - start)

    def _publish(self, partial: Path, folder: Path, identity: dict[str, Any], seconds: float) -> None:
        entry = {"depends_on": identity, "seconds": round(seconds, 3)}
        write_atomic(partial / _ENTRY, (canonical(entry, indent=2) + "\n").encode())
        partial.replace(folder)

    def _build_together(
        self, folder: Path, identity: dict[str, Any], build: Callable[[Path], float | None]
    ) -> None:
        """Build a missing entry in several processes. The first process holds the lock and publishes the entry."""
        lock = locked(folder.with_name(folder.name + ".lock")) if distributed.rank() == 0 else nullcontext()
        with lock:
            if distributed.broadcast(folder.exists()):
                return
            partial = folder.with_name(folder.name + ".partial")
            if distributed.rank() == 0:
                partial.mkdir(exist_ok=True)
            start = time.monotonic()
            with distributed.private_copy(partial) as own_folder:
                earlier = build(own_folder) or 0.0
                self.spent += time.monotonic() - start
                if distributed.rank() == 0:
                    self._publish(partial, folder, identity, earlier + time.monotonic() - start)


def _identity(kind: str, depends_on: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "numbers": NUMBERS_VERSION, **depends_on}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; first wait until no other process holds it. A process that ends releases its locks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(path))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.info("waiting for another run that holds the lock %s", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def publish(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Create `folder` atomically with the files that `fill` writes.

    Raises:
        FileExistsError: `folder` already exists. It is not changed.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} already exists. Remove it first or choose another folder")
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
                f"{folder} was created by another run at the same time, so the new files were not written. "
                "Choose another folder, or remove this one and run the command again"
            ) from error
        raise
    return folder
