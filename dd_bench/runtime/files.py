"""Canonical JSON, content hashes, and files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

MAX_DEPTH = 50
"""Lists and objects of JSON inside each other."""


_NESTED = (dict, list)


def parse_json(content: bytes) -> Any:
    """Returns what JSON says that may be a stranger's.

    Raises:
        ValueError: it is none, holds half a surrogate pair, which is no text, or is nested deeper than `MAX_DEPTH`.
    """
    text = content.decode(json.detect_encoding(content))  # a half in plain bytes ends here
    try:
        data = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from error
    level, depth = [data] if isinstance(data, _NESTED) else [], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        inside = (x.values() if isinstance(x, dict) else x for x in level)
        level = [x for part in inside for x in part if isinstance(x, _NESTED)]
    if re.search(r"\\u[dD][89a-fA-F]", text):  # the escape of a half: with its other one beside it, or not
        json.dumps(data, ensure_ascii=False).encode()
    return data


def canonical(data: Any, indent: int | None = None) -> str:
    """Returns JSON with sorted keys and no NaN: equal data give equal text."""
    return json.dumps(data, sort_keys=True, indent=indent, allow_nan=False, ensure_ascii=False)


def content_key(data: Any) -> str:
    """Returns the first 16 hex digits of the sha256 of `data`'s canonical JSON."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str | None:
    """Returns the sha256 of a file, None if there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Writes `content` to `path` so that a crash or a full disk leaves the old file or the new one, never a part.

    Raises:
        OSError: nothing could be written; the old file is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = None
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException as error:
        if name is not None:
            Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, f"{error.strerror}; what was there is untouched", str(path)) from error
        raise
