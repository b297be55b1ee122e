"""Read and write a folder at a URL: on a web server, in an object store, on the Hugging Face hub, or on a disk.

Supports every URL that fsspec can open, e.g. `https://`, `s3://`, `hf://datasets/USER/NAME[@REVISION]`, `file://`. The
libraries behind fsspec raise different classes of errors. `Remote` converts them to OSError and adds the URL.
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
"""Number of bytes per read."""
ATTEMPTS = 3
"""Number of attempts at a download. Each attempt continues where the previous one failed."""
MAX_READ = 16 << 20
"""Maximum size in bytes of a file that is read into memory, such as a card."""
THREADS = 16
"""Number of files that are read in parallel."""
NOT_FOUND = (404, 410)
"""HTTP statuses of a missing file. All other error statuses mean that the file could not be read."""
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
            system, path = fsspec.core.url_to_fs(url, skip_instance_cache=True)
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

    def read(self, name: str) -> bytes:
        """Return the content of a file of at most `MAX_READ` bytes.

        Raises:
            FileNotFoundError: the file does not exist.
            OSError: the file could not be read or is too large.
        """
        with self._open(name) as source:
            content = bytearray()
            while block := source.read(BLOCK):  # a web server may return fewer bytes
                content += block
                if len(content) > MAX_READ:
                    raise OSError(f"the file must have at most {MAX_READ:,} bytes")
        return bytes(content)

    def read_all(self, names: list[str]) -> dict[str, bytes]:
        """Read several files in parallel, see `read`, and return the contents of those that exist.

        Raises:
            OSError: an existing file could not be read or is too large.
        """

        def read_one(name: str) -> bytes | None:
            try:
                return self.read(name)
            except FileNotFoundError:
                return None

        with ThreadPoolExecutor(THREADS) as pool:
            contents = dict(zip(names, pool.map(read_one, names), strict=True))
        return {name: content for name, content in contents.items() if content is not None}

    def fetch(self, name: str, to: Path) -> None:
        """Download a file to `to`. Continue an earlier attempt if the server supports it.

        Raises:
            FileNotFoundError: the file does not exist.
            OSError: `ATTEMPTS` attempts failed, or `to` could not be written. Data received so far is kept.
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
        if start := to.stat().st_size if to.exists() else 0:
            try:
                return self._copy(name, to, start)
            except _Unseekable:
                pass
        return self._copy(name, to, 0)

    def _copy(self, name: str, to: Path, start: int) -> None:
        with self._open(name, start) as source:
            block = source.read(BLOCK)  # before the truncation below, so that a failure loses no data
            with _local_writes(to):
                sink = to.open("ab")
                sink.truncate(start)
            with sink:
                while block:
                    with _local_writes(to):
                        sink.write(block)
                        sink.flush()
                    block = source.read(BLOCK)

    @contextmanager
    def _open(self, name: str, start: int = 0) -> Iterator[Any]:
        """Open a file for reading from byte `start`. Not every web server supports `start` > 0."""
        # block_size 0 streams the file; otherwise each block is a separate request
        options = {"block_size": 0} if self.web and not start else {}
        with self._errors(name), self.system.open(self._path(name), "rb", **options) as source:
            if start:
                source.seek(start)
            yield source

    def digest(self, name: str) -> str | None:
        """Return the sha256 of a file, or None if it does not exist."""
        sha256 = hashlib.sha256()
        try:
            with self._open(name) as source:
                while block := source.read(BLOCK):
                    sha256.update(block)
        except FileNotFoundError:
            return None
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
            if "file" in self.system.protocol:
                with _folder_creation(self.url):
                    self.system.makedirs(self.path, exist_ok=True)
            self.system.put_file(str(file), self._path(name))

    def remove(self, name: str) -> None:
        """Delete a file if it exists."""
        with self._errors(name):
            if self.system.exists(self._path(name)):
                self.system.rm_file(self._path(name))

    def folders(self) -> list[str]:
        """Return the sorted names of the subfolders."""
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
        except (_Unwritable, MemoryError):
            raise
        except PermissionError as error:
            raise PermissionError(f"{where} could not be reached: {error}") from error
        except ValueError as error:
            if "range" in str(error) or "seek" in str(error):
                raise _Unseekable(f"{where} can only be read from the beginning") from error
            raise OSError(f"{where} could not be read: {error}") from error
        except Exception as error:  # every library has its own error classes
            raise OSError(f"{where} could not be reached: {str(error) or type(error).__name__}") from error


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
