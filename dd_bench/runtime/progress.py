"""Show the progress of nested loops as bars in a terminal or notebook, or else as one log line per minute.

A terminal has one bar for each loop that is running, e.g. the jobs of a sweep, the networks of an evaluation and their
epochs. A notebook without ipywidgets has only the outermost bar. Worker processes show nothing. A bar is drawn a few
times a second, with values that are already on the host.
"""

from __future__ import annotations

import logging
import multiprocessing
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Protocol, Self

_log = logging.getLogger(__name__)
_LINE_EVERY = 60.0  # seconds
_BAR_EVERY = 0.2
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


class _Bar(Protocol):
    def show(self, done: int, text: str) -> None:
        """Show the number of steps done, and a text after it."""

    def close(self) -> None:
        """Remove the bar."""


class _NotebookBar:
    open_bars = 0

    def __init__(self, name: str, total: int, start: int):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # without ipywidgets, the import warns and shows a text bar
            from tqdm.auto import tqdm

            self._bar: Any = tqdm(desc=name, total=total, initial=start, leave=False)
        _NotebookBar.open_bars += 1

    @staticmethod
    def fits() -> bool:
        """Return whether another bar can be shown. Bars of text cannot be nested, those of ipywidgets can."""
        return _NotebookBar.open_bars == 0 or find_spec("ipywidgets") is not None

    def show(self, done: int, text: str) -> None:
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()
        _NotebookBar.open_bars -= 1


def _new_bar(name: str, total: int, start: int) -> _Bar | None:
    """Return a bar, or None if there is no step, terminal or notebook, or the bars are hidden."""
    if total == 0 or not _BARS.get() or multiprocessing.parent_process() is not None:
        return None
    if in_notebook():
        return _NotebookBar(name, total, start) if _NotebookBar.fits() else None
    if not sys.stderr.isatty():
        return None
    from dd_bench.runtime.terminal_bars import new_bar  # imports rich

    return new_bar(name, total, start)


class Progress:
    """Context manager that shows the progress of a loop of `total` steps, of which `start` are already done.

    With `lines=False`, nothing is logged if there is no bar, because the steps of the loop log their own lines.
    """

    def __init__(self, name: str, total: int, start: int = 0, lines: bool = True):
        self._name, self._total, self._start, self._lines = name, total, start, lines
        self._bar: _Bar | None = None

    def __enter__(self) -> Self:
        self._start_time = self._line_time = time.monotonic()
        self._bar_time = 0.0
        self._bar = _new_bar(self._name, self._total, self._start)
        if self._start and self._lines:
            _log.info("%s resumes at step %d of %d", self._name, self._start, self._total)
        return self

    def advance_to(self, done: int, values: dict[str, float]) -> None:
        """Show the number of steps done and the latest logged values."""
        now = time.monotonic()
        if self._bar is not None:
            if now - self._bar_time >= _BAR_EVERY or done >= self._total:
                self._bar.show(done, _text(values))
                self._bar_time = now
            return
        due = now - self._line_time >= _LINE_EVERY or (done == self._total and now - self._start_time >= 5)
        if self._lines and due:
            left = (now - self._start_time) / max(1, done - self._start) * (self._total - done)
            _log.info("%s %d/%d  %s  about %.0f s left", self._name, done, self._total, _text(values), left)
            self._line_time = now

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def _text(values: dict[str, float]) -> str:
    return "  ".join(f"{k} {v:.4g}" for k, v in values.items())
