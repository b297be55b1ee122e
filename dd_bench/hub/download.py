"""Download a file of a remote folder. An interrupted download continues where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dd_bench.hub.remote import Remote
from dd_bench.hub.remote_errors import Unseekable, Unwritable

ATTEMPTS = 3
"""Number of consecutive failed attempts at a download that receive fewer than `PROGRESS` bytes each. Each attempt
continues where the previous one stopped."""
PROGRESS = 1 << 16
"""Number of new bytes after which an attempt counts as progress."""


def download(remote: Remote, name: str, to: Path, limit: int) -> None:
    """Download a file of at most `limit` bytes to `to`. Continue an earlier attempt if the server supports it.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is larger than `limit`.
        OSError: `ATTEMPTS` consecutive attempts made no progress, or `to` could not be written. Data received so
            far is kept.
    """
    largest, failures = _size(to), 0
    while True:
        try:
            return _attempt(remote, name, to, limit)
        except (FileNotFoundError, Unwritable):
            raise
        except OSError:
            failures = 0 if _size(to) >= largest + PROGRESS else failures + 1
            largest = max(largest, _size(to))
            if failures >= ATTEMPTS:
                raise


def _attempt(remote: Remote, name: str, to: Path, limit: int) -> None:
    if 0 < (start := _size(to)) <= limit:
        try:
            return _copy(remote, name, to, start, limit)
        except Unseekable:
            pass
    return _copy(remote, name, to, 0, limit)


def _copy(remote: Remote, name: str, to: Path, start: int, limit: int) -> None:
    with remote.opened(name, start) as source:
        blocks = remote.blocks(name, source, limit, start)
        block = next(blocks, b"")  # before the truncation below, so that a failure loses no data
        with _local_writes(to):
            sink = to.open("ab")
            sink.truncate(start)
        with sink:
            while block:
                with _local_writes(to):
                    sink.write(block)
                    sink.flush()
                block = next(blocks, b"")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _local_writes(to: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unwritable(error.errno, f"{error.strerror}; data received so far is kept", str(to)) from error
