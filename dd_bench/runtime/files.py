"""Canonical JSON, content hashes, and atomic writing of files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

MAX_DEPTH = 50
"""Maximum nesting depth of lists and objects in JSON."""
_NESTED = (dict, list)


def parse_json(content: bytes) -> Any:
    """Parse JSON from an untrusted source.

    Raises:
        ValueError: the content is not JSON, contains an unpaired surrogate, or is nested deeper than `MAX_DEPTH`.
    """
    text = content.decode(
        json.detect_encoding(content)
    )  # raises for unpaired surrogates that are not escaped
    try:
        data = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"JSON must have at most {MAX_DEPTH} levels of nesting") from error
    level, depth = [data] if isinstance(data, _NESTED) else [], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"JSON must have at most {MAX_DEPTH} levels of nesting")
        children = (x.values() if isinstance(x, dict) else x for x in level)
        level = [x for values in children for x in values if isinstance(x, _NESTED)]
    if re.search(r"\\u[dD][89a-fA-F]", text):  # escaped surrogates
        json.dumps(data, ensure_ascii=False).encode()  # raises for unpaired ones
    return data


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
