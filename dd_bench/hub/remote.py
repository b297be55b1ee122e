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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import fsspec

from dd_bench.runtime import untrusted
from dd_bench.synthetic.card import NAME

BLOCK = 1 << 20
"""Number of bytes per read."""
ATTEMPTS = 3
"""Number of consecutive failed attempts at a download that receive fewer than `PROGRESS` bytes each. Each attempt
continues where the previous one stopped."""
PROGRESS = 1 << 16
"""Number of new bytes after which an attempt counts as progress."""
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
NOT_FOUND = (404, 410)
"""HTTP statuses of a missing file. All other error statuses mean that the file could not be read."""
RANGE_NOT_SATISFIABLE = 416
"""HTTP status if a file has no byte at the requested start."""
_HEADERS = {"Accept-Encoding": "identity"}
EXTRAS = {"s3": "'dd-bench[s3]'", "s3a": "'dd-bench[s3]'"}
"""Optional dependency of dd-bench that installs the library for a URL scheme."""
EXAMPLES = "file:///absolute/folder, s3://BUCKET/FOLDER, hf://datasets/USER/NAME, https://HOST/FOLDER"


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
        scheme = url.partition("://")[0]
        try:
            # a cached file system could return outdated listings
            options = _http_options() if scheme in ("http", "https") else {}
            system, path = fsspec.core.url_to_fs(url, skip_instance_cache=True, **options)
        except ImportError as error:
            match = re.search(r"[Ii]nstall ['\"]?([A-Za-z0-9_-]+)", str(error))
            package = EXTRAS.get(scheme) or (match and match[1])
            hint = f". Use: pip install {package}" if package else ""
            raise ImportError(
                f"{scheme}:// requires a library that is not installed ({error}){hint}"
            ) from error
        except ValueError as error:
            raise ValueError(f"the URL {url} is not supported ({error}). Examples: {EXAMPLES}") from error
        except OSError as error:
            raise OSError(f"{url} could not be reached: {error}") from error
        schemes = [system.protocol] if isinstance(system.protocol, str) else system.protocol
        if scheme not in schemes:
            raise ValueError(
                f"{url} is not supported: it would be opened as {schemes[0]}://. Examples: {EXAMPLES}"
            )
        return cls(url, system, str(path))

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
        with self._open(name) as source:
            for block in self._blocks(name, source, limit):
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

    def fetch(self, name: str, to: Path, limit: int) -> None:
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
                return self._fetch(name, to, limit)
            except (FileNotFoundError, _Unwritable):
                raise
            except OSError:
                failures = 0 if _size(to) >= largest + PROGRESS else failures + 1
                largest = max(largest, _size(to))
                if failures >= ATTEMPTS:
                    raise

    def _fetch(self, name: str, to: Path, limit: int) -> None:
        if 0 < (start := _size(to)) <= limit:
            try:
                return self._copy(name, to, start, limit)
            except _Unseekable:
                pass
        return self._copy(name, to, 0, limit)

    def _copy(self, name: str, to: Path, start: int, limit: int) -> None:
        with self._open(name, start) as source:
            blocks = self._blocks(name, source, limit, start)
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

    @contextmanager
    def _open(self, name: str, start: int = 0) -> Iterator[Any]:
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
                    options["headers"] = _HEADERS | {"Range": f"bytes={start}-"}
            with self.system.open(self._path(name), "rb", **options) as source:
                if self.web:
                    _check_response(source.r, start)
                elif start:
                    source.seek(start)
                yield source

    def _blocks(self, name: str, source: Any, limit: int, received: int = 0) -> Iterator[bytes]:
        """Read the rest of a file of at most `limit` bytes in blocks. `received` bytes were read before.

        Raises:
            ValueError: the file is larger.
            TimeoutError: fewer than `TRICKLE` bytes were received in `STALL` seconds.
        """
        since, recent = time.monotonic(), 0
        while block := source.read(BLOCK):  # a web server may return fewer bytes
            received += len(block)
            if received > limit:
                raise _TooLarge(
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
            with self._open(name) as source:
                for block in self._blocks(name, source, limit):
                    sha256.update(block)
        except FileNotFoundError:
            return None
        except _TooLarge:
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
                    self.system.makedirs(self.path, exist_ok=True)
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

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        """Convert the errors of all libraries to OSError and add the URL of the file."""
        where = f"{self.url}/{name}".rstrip("/")
        try:
            yield
        except FileNotFoundError as error:
            if cause := _other_cause(error):
                kind = PermissionError if _http_status(cause) in (401, 403) else OSError
                raise kind(f"{where} could not be reached: {cause}") from error
            raise FileNotFoundError(f"{where} does not exist") from error
        except (_Unwritable, _Unseekable, _TooLarge, MemoryError):
            raise
        except PermissionError as error:
            raise PermissionError(f"{where} could not be reached: {error}") from error
        except TimeoutError as error:
            raise OSError(
                f"{where} could not be read: no data were received for {STALL:g} seconds"
            ) from error
        except ValueError as error:
            raise OSError(f"{where} could not be read: {error}") from error
        except Exception as error:  # every library has its own error classes
            if _http_status(error) == RANGE_NOT_SATISFIABLE:
                raise _Unseekable(f"{where} can only be read from the beginning") from error
            kind = PermissionError if _http_status(error) in (401, 403) else OSError
            raise kind(f"{where} could not be reached: {str(error) or type(error).__name__}") from error


def _other_cause(error: FileNotFoundError) -> BaseException | None:
    """Return the network error that a library reports as a missing file, or None if the file is really missing."""
    cause = error.__cause__
    while cause is not None:
        failed = isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp")
        if failed and not isinstance(cause, FileNotFoundError) and _http_status(cause) not in NOT_FOUND:
            return cause
        cause = cause.__cause__
    return None


def folder_url(url: str) -> str:
    """Return the URL of a folder without trailing slashes.

    Raises:
        ValueError: the URL is not supported, or has no scheme or path, or has a query.
    """
    scheme, separator, path = url.partition("://")
    path = path.rstrip("/")
    if separator and scheme not in fsspec.available_protocols():
        raise ValueError(f"the URL {url} is not supported. Examples: {EXAMPLES}")
    if not separator or not path:
        raise ValueError(f"expected the URL of a folder, got {url!r}. Examples: {EXAMPLES}")
    if scheme != "file" and ("?" in url or "#" in url):  # in a file:// URL they can be part of a name
        raise ValueError(
            f"the URL must have no query or fragment, got {url!r}. Example: https://HOST/sets/NAME"
        )
    return f"{scheme}://{path}"


def _http_status(error: BaseException) -> int | None:
    """Return the HTTP status in an error of aiohttp, requests or botocore, or None."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(error, "status", None) or getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _http_options() -> dict[str, Any]:
    """Return the options of fsspec's HTTP file system: no compression, and time limits only for missing progress."""
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=STALL, sock_read=STALL)
    return {"headers": _HEADERS, "client_kwargs": {"auto_decompress": False, "timeout": timeout}}


def _check_response(response: Any, start: int) -> None:
    """Check that a web server sends the file uncompressed, and from byte `start`.

    Raises:
        ValueError: the response is compressed.
        _Unseekable: the server does not support ranges.
    """
    if (encoding := response.headers.get("Content-Encoding", "identity")) != "identity":
        raise ValueError(f"the server must send the file uncompressed, got Content-Encoding: {encoding}")
    sent_range = response.headers.get("Content-Range", "")
    if start and not (response.status == 206 and sent_range.startswith(f"bytes {start}-")):
        raise _Unseekable(f"{response.url} can only be read from the beginning")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class _TooLarge(ValueError):
    """A file is larger than allowed, so another attempt would also fail."""


class _Unseekable(OSError):
    """The server cannot send a part of a file."""


class _Unwritable(OSError):
    """A file or folder cannot be written, so another attempt would also fail."""


@contextmanager
def _folder_creation(url: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _Unwritable(error.errno, f"{error.strerror}; the folder could not be created", url) from error


@contextmanager
def _local_writes(to: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _Unwritable(error.errno, f"{error.strerror}; data received so far is kept", str(to)) from error
