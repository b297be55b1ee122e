"""Canonical JSON, content hashes, and atomic writing of files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

NAME = r"[A-Za-z0-9][A-Za-z0-9_.+-]*"
"""Names of datasets and methods. They are parts of file names and URLs."""


def canonical(data: Any, indent: int | None = None) -> str:
    """Return JSON with sorted keys, so that equal data give equal text. NaN and infinity raise ValueError."""
    return json.dumps(data, sort_keys=True, indent=indent, allow_nan=False, ensure_ascii=False)


def content_key(data: Any) -> str:
    """Return the first 16 hex digits of the sha256 of `data`'s canonical JSON."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str | None:
    """Return the sha256 of a file, or None if it does not exist."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def expand_home(path: str, instead: str) -> Path:
    """Return a path with `~` replaced by the home folder of the user.

    Args:
        path: the path.
        instead: the setting that makes the home folder unnecessary, for the error message.

    Raises:
        FileNotFoundError: the home folder is not known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(
            f"the home folder in {path} is not known, because the environment variable HOME is not set. Use {instead}"
        ) from error


def writable_hint(error: BaseException, *, writing: bool = False) -> str:
    """Return the message of an error, with the settings of the folders if a folder cannot be written.

    With `writing`, every error of the file system is one of writing. Without it, only errors with the codes of folders
    that cannot be written are.
    """
    if not isinstance(error, OSError) or error.filename is None:
        return str(error)
    if not writing and error.errno not in _NOT_WRITABLE:
        return str(error)
    return (
        f"{error}. Use folders that you can write to: out=FOLDER for sets and records, cache=FOLDER for teachers and "
        "experts, and the environment variable DD_BENCH_HOME=FOLDER for decoded images and downloaded sets"
    )


_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
"""Codes of errors for folders that are read-only, are regular files, or are below a regular file."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically: after a crash or on a full disk, `path` is the complete old or new file.

    Raises:
        OSError: the file could not be written. The old file is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(
                error.errno, f"{error.strerror}; any existing file is unchanged", str(path)
            ) from error
        raise
