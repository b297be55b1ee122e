"""Convert the errors of the libraries behind fsspec, which share no class, to OSError with the URL of the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

NOT_FOUND = (404, 410)
"""HTTP statuses of a missing file. All other error statuses mean that the file could not be read."""
RANGE_NOT_SATISFIABLE = 416
"""HTTP status if a file has no byte at the requested start."""


class TooLarge(ValueError):
    """A file is larger than allowed, so another attempt would also fail."""


class Unseekable(OSError):
    """The server cannot send a part of a file."""


class Unwritable(OSError):
    """A file or folder cannot be written, so another attempt would also fail."""


@contextmanager
def converted(where: str, stall: float) -> Iterator[None]:
    """Convert the errors of all libraries to OSError and add `where`, the URL of the file.

    Args:
        where: the URL.
        stall: seconds without data after which a TimeoutError is raised, for its message.
    """
    try:
        yield
    except FileNotFoundError as error:
        if cause := _other_cause(error):
            kind = PermissionError if _http_status(cause) in (401, 403) else OSError
            raise kind(f"{where} could not be reached: {cause}") from error
        raise FileNotFoundError(f"{where} does not exist") from error
    except (Unwritable, Unseekable, TooLarge, MemoryError):
        raise
    except PermissionError as error:
        raise PermissionError(f"{where} could not be reached: {error}") from error
    except TimeoutError as error:
        raise OSError(f"{where} could not be read: no data were received for {stall:g} seconds") from error
    except ValueError as error:
        raise OSError(f"{where} could not be read: {error}") from error
    except Exception as error:  # every library has its own error classes
        if _http_status(error) == RANGE_NOT_SATISFIABLE:
            raise Unseekable(f"{where} can only be read from the beginning") from error
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


def _http_status(error: BaseException) -> int | None:
    """Return the HTTP status in an error of aiohttp, requests or botocore, or None."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(error, "status", None) or getattr(response, "status_code", None)
    return status if isinstance(status, int) else None
