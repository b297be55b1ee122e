"""What a person sees of a long loop: a bar on a terminal, a line a minute in a log file."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

_log = logging.getLogger(__name__)
_LINE_EVERY = 60.0  # seconds


class Progress:
    """A context that shows how far a loop of `total` steps is."""

    def __init__(self, name: str, total: int, start: int = 0):
        """Begins at `start` steps done."""
        self._name, self._total, self._start = name, total, start
        self._bar: Bar | None = None
        if sys.stderr.isatty():
            columns = (
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[values]}"),
            )
            self._bar = Bar(
                TextColumn("{task.description}"), BarColumn(), *columns, console=Console(stderr=True)
            )

    def __enter__(self) -> Self:
        self._began = self._spoke = time.monotonic()
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=self._total, completed=self._start, values="")
        if self._start:
            _log.info("%s resumes at step %d of %d", self._name, self._start, self._total)
        return self

    def advance_to(self, done: int, values: dict[str, float]) -> None:
        """Shows that `done` steps are done, with the latest logged values."""
        text = "  ".join(f"{k} {v:.4g}" for k, v in values.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=done, values=text)
            return
        now = time.monotonic()
        if now - self._spoke >= _LINE_EVERY or (done == self._total and now - self._began >= 5):
            left = (now - self._began) / max(1, done - self._start) * (self._total - done)
            _log.info("%s %d/%d  %s  about %.0f s left", self._name, done, self._total, text, left)
            self._spoke = now

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
