"""The sha256 and the size in pixels of image files, computed once and reused until a file changes.

The values of a dataset are stored in one JSON file in the user's cache folder. An image file counts as unchanged if its
length, its modification time and its change time (which programs cannot set) are the stored ones.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from dd_bench.data.image_cache import image_cache, mark_used
from dd_bench.data.threads import in_chunks
from dd_bench.runtime.files import write_atomic

_VERSION = 1
_CLOCK_SECONDS = (
    2.0  # coarsest resolution of the times of a file system; a later edit can have the same times
)
_CHUNK = 256
_log = logging.getLogger(__name__)


class ImageInfo(NamedTuple):
    """Content of one image file.

    Attributes:
        sha256: hash of the file's bytes.
        height: height in pixels; 0 if the file is not an image.
        width: width in pixels; 0 if the file is not an image.
    """

    sha256: str
    height: int
    width: int


def index_images(folder: Path, paths: Sequence[Path]) -> list[ImageInfo]:
    """Return the content of the files `paths` below `folder`. Only new and changed files are read."""
    store = image_cache() / f"index-{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}.json"
    mark_used(store)
    began = time.time()
    known = _load(store)
    names = [path.relative_to(folder).as_posix() for path in paths]
    stamps = [_stamp(path) for path in paths]
    changed = [i for i, name in enumerate(names) if known.get(name, [None])[0] != stamps[i]]
    if changed:
        _log.info("computing the sha256 of %d image files in %s", len(changed), folder)
        contents = in_chunks(_inspect, [paths[i] for i in changed], _CHUNK)
        values = (info for chunk in contents for info in chunk)
        for i, info in zip(changed, values, strict=True):
            # An edit in the same tick of the clock would not change the times, so such a file is read again next time.
            settled = max(stamps[i][1:]) < (began - _CLOCK_SECONDS) * 1e9
            known[names[i]] = [stamps[i] if settled else None, *info]
        _save(store, known)
    return [ImageInfo(*known[name][1:]) for name in names]


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _inspect(paths: Sequence[Path]) -> list[ImageInfo]:
    return [_inspect_file(path) for path in paths]


def _inspect_file(path: Path) -> ImageInfo:
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as image:  # reads only the header
            width, height = image.size
    except Exception:  # Pillow raises many classes of errors for damaged files
        width = height = 0  # decoding the file raises an error that names it
    return ImageInfo(hashlib.sha256(content).hexdigest(), height, width)


def _load(store: Path) -> dict[str, list[Any]]:
    """Return the stored values; empty if there are none, or if the file is damaged."""
    try:
        stored = json.loads(store.read_bytes())
        return dict(stored["files"]) if stored["version"] == _VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _save(store: Path, known: dict[str, list[Any]]) -> None:
    try:
        write_atomic(store, json.dumps({"version": _VERSION, "files": known}).encode())
    except OSError as error:
        _log.warning(
            "the sha256 of the image files cannot be stored and will be computed again (%s). Use another folder: "
            "export DD_BENCH_HOME=FOLDER",
            error,
        )
