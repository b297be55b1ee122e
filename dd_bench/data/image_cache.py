"""The user's folder of stored hashes and decoded images, `~/.cache/dd_bench/images`. Its size is bounded.

When decoded images are added, the files that have not been used for the longest time are deleted until at most
`MAX_BYTES` remain. A file that was used in the last `KEEP_SECONDS` is never deleted, because a run may be about to open
it. Everything in the folder can be computed again, so the folder can be deleted at any time.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from pathlib import Path

from dd_bench.runtime.cache import user_folder

MAX_BYTES = 50 * 10**9
KEEP_SECONDS = 24 * 3600
SUFFIXES = (".safetensors", ".json", ".partial")
"""Decoded images, hashes, and the decoded images of killed processes. Lock files are empty."""
_log = logging.getLogger(__name__)


def image_cache() -> Path:
    """Return the folder."""
    return user_folder() / "images"


def mark_used(file: Path) -> None:
    """Set the modification time of a stored file to now."""
    with suppress(OSError):  # it is missing, or belongs to another user
        os.utime(file)


def prune() -> None:
    """Delete the files that have not been used for the longest time, see above."""
    used = {}
    with suppress(OSError):  # another process deleted a file or the folder
        used = {f: f.stat() for f in image_cache().iterdir() if f.suffix in SUFFIXES}
    excess = sum(status.st_size for status in used.values()) - MAX_BYTES
    for file, status in sorted(used.items(), key=lambda item: item[1].st_mtime):
        if excess <= 0 or time.time() - status.st_mtime < KEEP_SECONDS:
            break
        with suppress(OSError):
            file.unlink()
            file.with_suffix(".lock").unlink(missing_ok=True)
            excess -= status.st_size
            _log.info("deleted %s (%.0f MB), which was not used recently", file, status.st_size / 1e6)
