"""Read files, JSON and CSV from untrusted sources.

Only regular files are read, never links, FIFOs or devices, and their size is checked before they are read. JSON must
have one interpretation: no repeated keys, no NaN. Its size limits bound the memory that the parsed data needs.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from pydantic import ValidationError

MAX_JSON = 4 << 20
"""Maximum size of a JSON file in bytes. A card with the indices of 250,000 images has 4 MB."""
MAX_PARTS = 100_000
"""Maximum number of strings, lists and objects in a JSON file. With `MAX_JSON`, the parsed data need at most 64 MiB."""
MAX_DEPTH = 50
"""Maximum nesting depth of lists and objects in JSON."""
_NESTED = (dict, list)
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_FLAGS = os.O_RDONLY
for _name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):  # some exist only on some systems
    _FLAGS |= getattr(os, _name, 0)


@contextmanager
def open_regular(path: Path, limit: int, advice: str = "") -> Iterator[BufferedReader]:
    """Open a regular file of at most `limit` bytes for reading. The error of a larger file ends with `advice`.

    Raises:
        FileNotFoundError: the file does not exist.
        OSError: the file could not be opened.
        ValueError: `path` is not a regular file, e.g. a symbolic link, or the file is larger than `limit`.
    """
    _check_regular(path, path.lstat().st_mode)
    with os.fdopen(os.open(path, _FLAGS), "rb") as file:
        status = os.fstat(file.fileno())
        _check_regular(path, status.st_mode)  # again, because the path may have been replaced in the meantime
        if status.st_size > limit:
            raise ValueError(f"{path} must have at most {limit:,} bytes, got {status.st_size:,}{advice}")
        yield file


def read_buffer(path: Path, limit: int) -> bytearray:
    """Return the content of a regular file of at most `limit` bytes. Allocates exactly its size.

    Raises:
        OSError, ValueError: see `open_regular`; or the file changed while it was read, or does not fit into memory.
    """
    with open_regular(path, limit) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            content = bytearray(size)
        except MemoryError as error:
            raise ValueError(f"{path} does not fit into memory: it has {size:,} bytes") from error
        if file.readinto(content) != size or file.read(1):
            raise ValueError(f"{path} changed while it was read")
    return content


def read_bytes(path: Path, limit: int = MAX_JSON) -> bytes:
    """Return the content of a small regular file, see `read_buffer`."""
    return bytes(read_buffer(path, limit))


def sha256(path: Path, limit: int) -> str:
    """Return the sha256 of a regular file of at most `limit` bytes, see `open_regular`."""
    with open_regular(path, limit) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def csv_rows(path: Path, limit: int) -> Iterator[list[str]]:
    """Yield the non-empty rows of a CSV file of at most `limit` bytes.

    Raises:
        OSError, ValueError: see `read_buffer`; or the content is not CSV in UTF-8.
    """
    try:
        text = io.StringIO(read_bytes(path, limit).decode("utf-8-sig"), newline="")
        yield from (row for row in csv.reader(text) if row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} must be a CSV file in UTF-8: {error}") from error


def parse_json(content: bytes) -> Any:
    """Parse JSON from an untrusted source.

    Raises:
        ValueError: the content is not JSON, repeats a key of an object, has an unpaired surrogate, a number
            that is not finite or an integer of more than 64 bits, or exceeds `MAX_JSON`, `MAX_PARTS` or `MAX_DEPTH`.
    """
    if len(content) > MAX_JSON:
        raise ValueError(f"JSON must have at most {MAX_JSON:,} bytes, got {len(content):,}")
    parts = content.count(b'"') // 2 + content.count(b"[") + content.count(b"{")
    if parts > MAX_PARTS:
        raise ValueError(f"JSON must have at most {MAX_PARTS:,} strings, lists and objects, got {parts:,}")
    text = content.decode(
        json.detect_encoding(content)
    )  # raises for unpaired surrogates that are not escaped
    try:
        data = json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_number
        )
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


def problems(error: ValidationError, shown: int = 5) -> str:
    """Return the first problems that pydantic found, as `field: message; field: message`."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    texts = [shorten(f"{'.'.join(map(str, e['loc']))}: {e['msg']}") for e in found[:shown]]
    return "; ".join(texts + [f"and {len(found) - shown} more"] * (len(found) > shown))


def shorten(message: object, limit: int = 1000) -> str:
    """Return a message that contains untrusted values as text of at most `limit` characters."""
    text = str(message)
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 2 + 5 :]}"


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "another kind of file")
        hint = f". To replace links by copies: cp -rL {path.parent} COPY" if stat.S_ISLNK(mode) else ""
        raise ValueError(f"{path} must be a regular file, got {kind}{hint}")


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"JSON must not repeat a key of an object, got {repeated[:100]!r} twice")
    return result


def _integer(text: str) -> int:
    value = int(text)
    if not -(2**63) <= value < 2**64:
        raise ValueError(f"JSON integers must have at most 64 bits, got {text[:30]}")
    return value


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"JSON numbers must be finite, got {text[:30]}")
    return value
