"""Read and write a folder at a URL: on a web server, in an object store, on the Hugging Face hub, or on a disk.

Supports every URL that fsspec can open, e.g. `https://`, `s3://`, `hf://datasets/USER/NAME[@REVISION]`, `file://`. The
libraries behind fsspec raise different classes of errors. `Remote` converts them to OSError and adds the URL.

The server may be hostile. Every download has a maximum number of bytes and ends if no data arrive for `STALL` seconds.
Compressed responses are refused, because a few bytes can expand to gigabytes. Slow downloads have no total time limit.
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dd_bench.hub.remote_errors import TooLarge, Unseekable, Unwritable, converted
from dd_bench.hub.urls import HEADERS, folder_url, open_file_system
from dd_bench.runtime import untrusted
from dd_bench.synthetic.card import NAME

BLOCK = 1 << 20
"""Number of bytes per read."""
STALL = 60.0
"""Seconds without data after which a connection is closed. Fewer than `TRICKLE` bytes count as no data."""
TRICKLE = 1 << 10
"""Minimum number of bytes per `STALL` seconds."""
MAX_READ = untrusted.MAX_JSON
"""Maximum size in bytes of a file that is read into memory, such as a card."""
MAX_LISTING = 32 << 20
"""Maximum total size in bytes of the cards that are read for one list of sets."""
THREADS = 16
"""Number of files that are read in parallel."""


@dataclass(frozen=True)
class Remote:
    """A folder at a URL."""

    url: str
    system: Any  # fsspec's AbstractFileSystem
    path: str

    @classmethod
    def at(cls, url: str) -> Remote:
        """Open the file system of a URL. No data is transferred.

        Raises:
            ValueError: fsspec does not support the URL.
            ImportError: the library for the URL scheme is not installed.
            OSError: the file system could not be reached.
        """
        url = folder_url(url)
        # time limits only for missing progress
        system, path = open_file_system(url, STALL)
        return cls(url, system, path)

    @property
    def web(self) -> bool:
        """True if the URL is on a web server, which is read-only."""
        return self.url.startswith(("http://", "https://"))

    @property
    def local(self) -> bool:
        """True if the URL is a folder on a disk."""
        return "file" in self.system.protocol

    def read(self, name: str, limit: int | None = None) -> bytes:
        """Return the content of a file of at most `limit` bytes, `MAX_READ` by default.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file is larger.
            OSError: the file could not be read.
        """
        limit = MAX_READ if limit is None else limit
        content = bytearray()
        with self.opened(name) as source:
            for block in self.blocks(name, source, limit):
                content += block
        return bytes(content)

    def read_all(self, names: list[str]) -> dict[str, bytes]:
        """Read several files in parallel, see `read`, and return the contents of those that exist.

        Raises:
            ValueError: a file is too large, or the files have more than `MAX_LISTING` bytes in total.
            OSError: an existing file could not be read.
        """
        total = 0

        def read_one(name: str) -> bytes | None:
            nonlocal total
            try:
                content = self.read(name) if total <= MAX_LISTING else b""
            except FileNotFoundError:
                return None
            total += len(content)
            if total > MAX_LISTING:
                raise ValueError(
                    f"the cards of the sets at {self.url} must have at most {MAX_LISTING:,} bytes in total. "
                    "Use the URL of a single set"
                )
            return content

        with ThreadPoolExecutor(THREADS) as pool:
            contents = dict(zip(names, pool.map(read_one, names), strict=True))
        return {name: content for name, content in contents.items() if content is not None}

    @contextmanager
    def opened(self, name: str, start: int = 0) -> Iterator[Any]:
        """Open a file for reading from byte `start`. Not every web server supports `start` > 0."""
        with self._errors(name):
            if self.local:
                with untrusted.open_regular(Path(self._path(name)), sys.maxsize) as file:
                    file.seek(start)
                    yield file
                return
            options: dict[str, Any] = {}
            if self.web:
                # block_size 0 streams the file in one request; a given size saves a request for the size
                options = {"block_size": 0, "size": 1}
                if start:
                    options["headers"] = HEADERS | {"Range": f"bytes={start}-"}
            with self.system.open(self._path(name), "rb", **options) as source:
                if self.web:
                    _check_response(source.r, start)
                elif start:
                    source.seek(start)
                yield source

    def blocks(self, name: str, source: Any, limit: int, received: int = 0) -> Iterator[bytes]:
        """Read the rest of a file of at most `limit` bytes in blocks. `received` bytes were read before.

        Raises:
            ValueError: the file is larger.
            TimeoutError: fewer than `TRICKLE` bytes were received in `STALL` seconds.
        """
        since, recent = time.monotonic(), 0
        while block := source.read(BLOCK):  # a web server may return fewer bytes
            received += len(block)
            if received > limit:
                raise TooLarge(
                    f"{self.url}/{name} must have at most {limit:,} bytes, got more. Contact the publisher of the set"
                )
            yield block
            recent += len(block)
            if (now := time.monotonic()) - since > STALL:
                if recent < TRICKLE:
                    raise TimeoutError
                since, recent = now, 0

    def digest(self, name: str, limit: int) -> str | None:
        """Return the sha256 of a file, None if it does not exist, or "larger" if it has more than `limit` bytes."""
        sha256 = hashlib.sha256()
        try:
            with self.opened(name) as source:
                for block in self.blocks(name, source, limit):
                    sha256.update(block)
        except FileNotFoundError:
            return None
        except TooLarge:
            return "larger"
        return sha256.hexdigest()

    def write(self, name: str, file: Path) -> None:
        """Upload a local file.

        Raises:
            OSError: the file could not be written.
        """
        if self.web:
            raise OSError(f"{self.url} is read-only. Use file://, s3:// or hf://datasets/USER/NAME")
        with self._errors(name):
            # not for object stores: they have no folders, and makedirs would create a bucket with a misspelt name
            if self.local:
                with _folder_creation(self.url):
                    self.system.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
            self.system.put_file(str(file), self._path(name))

    def remove(self, name: str) -> None:
        """Delete a file if it exists."""
        with self._errors(name):
            if self.system.exists(self._path(name)):
                self.system.rm_file(self._path(name))

    def folders(self) -> list[str]:
        """Return the sorted names of the subfolders. On a web server, these are the links in its HTML listing."""
        if self.web:  # fsspec would read a page of any size
            links = re.findall(
                rb"""href\s{0,9}=\s{0,9}["']?([^"'<>\s?#]{1,500})/["'\s>]""", self.read(""), re.IGNORECASE
            )
            found = {unquote(link.decode(errors="replace").rpartition("/")[2]) for link in links}
            return sorted(name for name in found if re.fullmatch(NAME, name))
        with self._errors(""):
            listing = self.system.ls(self.path, detail=True)
        names = {
            str(f["name"]).rstrip("/").rpartition("/")[2] for f in listing if f.get("type") == "directory"
        }
        return sorted(names)

    def _path(self, name: str) -> str:
        return f"{self.path}/{name}"

    def _errors(self, name: str) -> AbstractContextManager[None]:
        return converted(f"{self.url}/{name}".rstrip("/"), STALL)


def _check_response(response: Any, start: int) -> None:
    """Check that a web server sends the file uncompressed, and from byte `start`.

    Raises:
        ValueError: the response is compressed.
        Unseekable: the server does not support ranges.
    """
    if (encoding := response.headers.get("Content-Encoding", "identity")) != "identity":
        raise ValueError(f"the server must send the file uncompressed, got Content-Encoding: {encoding}")
    sent_range = response.headers.get("Content-Range", "")
    if start and not (response.status == 206 and sent_range.startswith(f"bytes {start}-")):
        raise Unseekable(f"{response.url} can only be read from the beginning")


@contextmanager
def _folder_creation(url: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unwritable(error.errno, f"{error.strerror}; the folder could not be created", url) from error
