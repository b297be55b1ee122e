"""A folder somewhere else: on a web server, in an object store, on the Hugging Face hub, on another disk.

Whatever fsspec opens: `https://`, `s3://`, `hf://datasets/USER/NAME[@REVISION]`, `file://`. Classes of errors differ
from library to library; here all are OSError, and say which URL could not be had.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

BLOCK = 1 << 20
"""Bytes that are read at a time."""
ATTEMPTS = 3
"""Times that a transfer which breaks is taken up again before it is given up; what has arrived is kept."""
SMALL = 16 << 20
"""Bytes above which a file that is read at once (a card) is no such file."""
AT_ONCE = 16
"""Small files that are asked for at a time."""
GONE = (404, 410)
"""Answers of a server that say that a file is not there; all others say that it could not be had."""
EXTRAS = {"s3": "'dd-bench[s3]'", "s3a": "'dd-bench[s3]'"}
"""Extra of this package that brings the library of a scheme."""
EXAMPLES = "file:///absolute/folder, s3://BUCKET/FOLDER, hf://datasets/USER/NAME, https://HOST/FOLDER"


@dataclass(frozen=True)
class Remote:
    """A folder at a URL."""

    url: str
    system: Any  # fsspec's AbstractFileSystem
    path: str

    @classmethod
    def at(cls, url: str) -> Remote:
        """Opens a URL; nothing is transferred yet.

        Raises:
            ValueError: no library knows such URLs.
            ImportError: the library that does is not installed.
        """
        url = folder_url(url)
        scheme = url.partition("://")[0]
        try:
            # a cached system remembers listings that others have changed since
            system, path = fsspec.core.url_to_fs(url, skip_instance_cache=True)
        except ImportError as error:
            named = EXTRAS.get(scheme) or re.search(r"[Ii]nstall ['\"]?([A-Za-z0-9_-]+)", str(error))
            how = f". Use: pip install {named if isinstance(named, str) else named[1]}" if named else ""
            raise ImportError(f"{scheme}:// needs a library that is not installed ({error}){how}") from error
        except ValueError as error:
            raise ValueError(f"{url}: no library knows such URLs ({error}). Use e.g. {EXAMPLES}") from error
        except OSError as error:
            raise OSError(f"{url} could not be reached: {error}") from error
        known = [system.protocol] if isinstance(system.protocol, str) else system.protocol
        if scheme not in known:
            raise ValueError(f"{url} would be opened as {known[0]}://. Use e.g. {EXAMPLES}")
        return cls(url, system, str(path))

    @property
    def web(self) -> bool:
        """Whether it is a web server, which can be read and not written."""
        return self.url.startswith(("http://", "https://"))

    def read(self, name: str) -> bytes:
        """Returns a small file.

        Raises:
            FileNotFoundError: there is none.
            OSError: it could not be read, or is not small.
        """
        with self._opened(name) as source:
            content = bytearray()
            while block := source.read(BLOCK):  # a web server's come as they arrive
                content += block
                if len(content) > SMALL:
                    raise OSError(f"larger than {SMALL:,} bytes, which no such file is")
        return bytes(content)

    def read_all(self, names: list[str]) -> dict[str, bytes]:
        """Returns those of several small files that are there, asking for all at once.

        Raises:
            OSError: one could not be read, for another reason than that it is not there; or is not small.
        """

        def one(name: str) -> bytes | None:
            try:
                return self.read(name)
            except FileNotFoundError:
                return None

        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = dict(zip(names, pool.map(one, names), strict=True))
        return {name: content for name, content in found.items() if content is not None}

    def fetch(self, name: str, to: Path) -> None:
        """Copies a file to `to`, going on where an earlier attempt ended, if the server can.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: the transfer broke, several times; or nothing more could be written. What arrived is kept.
        """
        for attempt in range(ATTEMPTS):
            try:
                return self._fetch(name, to)
            except (FileNotFoundError, _Unwritable):
                raise
            except OSError:
                if attempt == ATTEMPTS - 1:
                    raise

    def _fetch(self, name: str, to: Path) -> None:
        have = to.stat().st_size if to.exists() else 0
        if have:
            try:
                return self._copy(name, to, have)
            except _Unseekable:
                have = 0
        return self._copy(name, to, have)

    def _copy(self, name: str, to: Path, have: int) -> None:
        with self._opened(name, have) as source:
            block = source.read(BLOCK)  # before what is there is cut off
            with _written(to):
                sink = to.open("ab")
                sink.truncate(have)
            with sink:
                while block:
                    with _written(to):
                        sink.write(block)
                        sink.flush()
                    block = source.read(BLOCK)

    @contextmanager
    def _opened(self, name: str, start: int = 0) -> Iterator[Any]:
        """Opens a file for reading from a byte on, which not every web server can."""
        how = {"block_size": 0} if self.web and not start else {}  # else each block is a request
        with self._reached(name), self.system.open(self._of(name), "rb", **how) as source:
            if start:
                source.seek(start)
            yield source

    def digest(self, name: str) -> str | None:
        """Returns the sha256 of a file, or None if it is not there."""
        found = hashlib.sha256()
        try:
            with self._opened(name) as source:
                while block := source.read(BLOCK):
                    found.update(block)
        except FileNotFoundError:
            return None
        return found.hexdigest()

    def write(self, name: str, file: Path) -> None:
        """Copies a file there.

        Raises:
            OSError: it could not be written.
        """
        if self.web:
            raise OSError(
                f"{self.url} can be read and not written. Use file://, s3:// or hf://datasets/USER/NAME"
            )
        with self._reached(name):
            if (
                "file" in self.system.protocol
            ):  # stores have no folders, and would make a bucket of a misspelling
                with _made(self.url):
                    self.system.makedirs(self.path, exist_ok=True)
            self.system.put_file(str(file), self._of(name))

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with self._reached(name):
            if self.system.exists(self._of(name)):
                self.system.rm_file(self._of(name))

    def folders(self) -> list[str]:
        """Returns the names of what lies in this folder and may be a folder itself, sorted."""
        with self._reached(""):
            found = self.system.ls(self.path, detail=True)
        names = {str(f["name"]).rstrip("/").rpartition("/")[2] for f in found if f.get("type") == "directory"}
        return sorted(names)

    def _of(self, name: str) -> str:
        return f"{self.path}/{name}"

    @contextmanager
    def _reached(self, name: str) -> Iterator[None]:
        where = f"{self.url}/{name}".rstrip("/")
        try:
            yield
        except FileNotFoundError as error:
            if lost := _lost(error):
                kind = PermissionError if _answer(lost) in (401, 403) else OSError
                raise kind(f"{where} could not be reached: {lost}") from error
            raise FileNotFoundError(f"there is no {where}") from error
        except (_Unwritable, MemoryError):
            raise
        except PermissionError as error:
            raise PermissionError(f"{where} could not be reached: {error}") from error
        except ValueError as error:
            if "range" in str(error) or "seek" in str(error):
                raise _Unseekable(f"{where} can only be read from its beginning") from error
            raise OSError(f"{where} could not be read: {error}") from error
        except Exception as error:  # every library has classes of its own
            raise OSError(f"{where} could not be reached: {str(error) or type(error).__name__}") from error


def _lost(error: FileNotFoundError) -> BaseException | None:
    """Returns the trouble that a library takes for a file that is not there; None where a server said so."""
    cause = error.__cause__
    while cause is not None:
        broken = isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp")
        if broken and not isinstance(cause, FileNotFoundError) and _answer(cause) not in GONE:
            return cause
        cause = cause.__cause__
    return None


def folder_url(url: str) -> str:
    """Returns the URL of a folder without a slash at its end.

    Raises:
        ValueError: it is none that a library knows.
    """
    scheme, found, rest = url.partition("://")
    rest = rest.rstrip("/")
    if found and scheme not in fsspec.available_protocols():
        raise ValueError(f"{url}: no library knows such URLs. Use e.g. {EXAMPLES}")
    if not found or not rest:
        raise ValueError(f"{url!r} is no URL of a folder. Use e.g. {EXAMPLES}")
    if scheme != "file" and ("?" in url or "#" in url):  # a folder may be named so
        raise ValueError(f"{url!r} has a query: wanted the folder of a set, as https://HOST/sets/NAME")
    return f"{scheme}://{rest}"


def _answer(error: BaseException) -> int | None:
    """Returns the status that a server answered with, as aiohttp, requests and botocore tell it; None without one."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(error, "status", None) or getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


@contextmanager
def _made(url: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _Unwritable(error.errno, f"{error.strerror}; no folder can be made there", url) from error


class _Unseekable(OSError):
    """A server sends the whole of a file or nothing."""


class _Unwritable(OSError):
    """Nothing more could be written here: another attempt would end the same."""


@contextmanager
def _written(to: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _Unwritable(error.errno, f"{error.strerror}; what has arrived is kept", str(to)) from error
