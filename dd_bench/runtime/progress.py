"""Show the progress of a long loop as a bar in a terminal or notebook, or else as one log line per minute."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

_log = logging.getLogger(__name__)
_LINE_EVERY = 60.0  # seconds
_BARS: ContextVar[bool] = ContextVar("bars", default=True)


@contextmanager
def bars(shown: bool) -> Iterator[None]:
    """Show or hide all progress bars inside the context."""
    token = _BARS.set(shown)
    try:
        yield
    finally:
        _BARS.reset(token)


def in_notebook() -> bool:
    """Return whether this process is the kernel of a Jupyter notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and "IPKernelApp" in shell.config


class Progress:
    """Context manager that shows the progress of a loop of `total` steps, of which `start` are already done."""

    def __init__(self, name: str, total: int, start: int = 0):
        self._name, self._total, self._start = name, total, start
        self._bar: Any = None

    def __enter__(self) -> Self:
        self._start_time = self._line_time = time.monotonic()
        if _BARS.get() and (sys.stderr.isatty() or in_notebook()):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # without ipywidgets, the import warns and shows a text bar
                from tqdm.auto import tqdm

                self._bar = tqdm(desc=self._name, total=self._total, initial=self._start, leave=False)
        if self._start:
            _log.info("%s resumes at step %d of %d", self._name, self._start, self._total)
        return self

    def advance_to(self, done: int, values: dict[str, float]) -> None:
        """Show the number of steps done and the latest logged values."""
        text = "  ".join(f"{k} {v:.4g}" for k, v in values.items())
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)
            return
        now = time.monotonic()
        if now - self._line_time >= _LINE_EVERY or (done == self._total and now - self._start_time >= 5):
            left = (now - self._start_time) / max(1, done - self._start) * (self._total - done)
            _log.info("%s %d/%d  %s  about %.0f s left", self._name, done, self._total, text, left)
            self._line_time = now

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
