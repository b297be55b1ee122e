"""URLs of folders, and the file systems of fsspec that open them."""

from __future__ import annotations

import re
from typing import Any

import fsspec

HEADERS = {"Accept-Encoding": "identity"}
"""Headers of every HTTP request: files must be sent uncompressed."""
EXTRAS = {"s3": "'dd-bench[s3]'", "s3a": "'dd-bench[s3]'"}
"""Optional dependency of dd-bench that installs the library for a URL scheme."""
EXAMPLES = "file:///absolute/folder, s3://BUCKET/FOLDER, hf://datasets/USER/NAME, https://HOST/FOLDER"


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


def open_file_system(url: str, stall: float) -> tuple[Any, str]:
    """Open the file system of a URL of `folder_url`, and return it and the path of the folder. No data is transferred.

    Args:
        url: the URL.
        stall: seconds without data after which a connection to a web server is closed.

    Raises:
        ValueError: fsspec does not support the URL.
        ImportError: the library for the URL scheme is not installed.
        OSError: the file system could not be reached.
    """
    scheme = url.partition("://")[0]
    try:
        # a cached file system could return outdated listings
        options = _http_options(stall) if scheme in ("http", "https") else {}
        system, path = fsspec.core.url_to_fs(url, skip_instance_cache=True, **options)
    except ImportError as error:
        match = re.search(r"[Ii]nstall ['\"]?([A-Za-z0-9_-]+)", str(error))
        package = EXTRAS.get(scheme) or (match and match[1])
        hint = f". Use: pip install {package}" if package else ""
        raise ImportError(f"{scheme}:// requires a library that is not installed ({error}){hint}") from error
    except ValueError as error:
        raise ValueError(f"the URL {url} is not supported ({error}). Examples: {EXAMPLES}") from error
    except OSError as error:
        raise OSError(f"{url} could not be reached: {error}") from error
    schemes = [system.protocol] if isinstance(system.protocol, str) else system.protocol
    if scheme not in schemes:
        raise ValueError(
            f"{url} is not supported: it would be opened as {schemes[0]}://. Examples: {EXAMPLES}"
        )
    return system, str(path)


def _http_options(stall: float) -> dict[str, Any]:
    """Return the options of fsspec's HTTP file system: no compression, and time limits only for missing progress."""
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=stall, sock_read=stall)
    return {"headers": HEADERS, "client_kwargs": {"auto_decompress": False, "timeout": timeout}}
