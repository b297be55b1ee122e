"""Progress bars of a terminal, with rich: one line for each loop, below the log lines.

While there is a bar, handlers of the root logger that write to the terminal print above the bars.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

_REFRESHES = 4  # per second


class TimeLeft(ProgressColumn):
    """The time left, from the mean time of the steps since the start of the bar."""

    def render(self, task: Task) -> Text:
        """See `ProgressColumn`."""
        steps = task.completed - task.fields["first"]
        if steps <= 0 or task.total is None or task.elapsed is None:
            return Text("-:--:--", style="progress.remaining")
        whole = task.fields["seconds"] / steps * (task.total - task.fields["first"])
        left = max(0, round(whole - task.elapsed))
        return Text(f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left", style="progress.remaining")


class _AboveBars:
    """Standard output or error while there are bars: complete lines are printed above the bars.

    The terminal wraps long lines, as without bars. Rich's own proxy would insert line breaks.
    """

    def __init__(self, console: Console, stream: TextIO):
        self._console, self.stream = console, stream
        self.rich_proxied_file = stream  # rich writes to this stream, not to the proxy
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._console.print(Text.from_ansi(line), soft_wrap=True)
        return len(text)

    def flush(self) -> None:
        """Do nothing: an incomplete line is printed when it is complete, or by `finish`."""

    def finish(self) -> None:
        """Write an incomplete line to the stream."""
        self.stream.write(self._rest)
        self._rest = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Display:
    """The bars that are shown at the moment."""

    def __init__(self, console: Console):
        self.console = console
        self._count = 0
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeLeft(),
            TextColumn("{task.fields[text]}", markup=False),
            console=console,
            refresh_per_second=_REFRESHES,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    @property
    def is_active(self) -> bool:
        """Whether there is a bar."""
        return self._count > 0

    def add(self, name: str, total: int, start: int) -> TaskID:
        """Add a bar below the others."""
        if self._count == 0:
            self._redirect()
            self._bars.start()
        self._count += 1
        return self._bars.add_task(name, total=total, completed=start, first=start, seconds=0.0, text="")

    def show(self, task: TaskID, done: int, text: str) -> None:
        """Set the steps done. The bar is drawn by a thread."""
        elapsed = self._bars.tasks[self._bars.task_ids.index(task)].elapsed or 0.0
        self._bars.update(task, completed=done, seconds=elapsed, text=text)

    def remove(self, task: TaskID) -> None:
        """Remove a bar. Without a bar, the log is written as before."""
        self._bars.remove_task(task)
        self._count -= 1
        if self._count == 0:
            self._bars.stop()
            self._restore()

    def _redirect(self) -> None:
        """Print what is written to a terminal above the bars, also by handlers that exist already."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream.isatty():
                above = _AboveBars(self.console, stream)
                setattr(sys, name, above)
                for handler in _handlers():
                    if handler.stream is stream:
                        handler.setStream(above)

    def _restore(self) -> None:
        for handler in _handlers():  # Hydra adds one at the start of each job
            if isinstance(handler.stream, _AboveBars):
                handler.setStream(handler.stream.stream)
        for name in ("stdout", "stderr"):
            above = getattr(sys, name)
            if isinstance(above, _AboveBars):
                above.finish()
                setattr(sys, name, above.stream)


def _handlers() -> list[Any]:
    return [h for h in logging.getLogger().handlers if isinstance(h, logging.StreamHandler)]


_display: _Display | None = None


class TerminalBar:
    """One bar; see `new_bar`."""

    def __init__(self, display: _Display, name: str, total: int, start: int):
        self._display = display
        self._task = display.add(name, total, start)

    def show(self, done: int, text: str) -> None:
        """Show the number of steps done, and a text after the bar."""
        self._display.show(self._task, done, text)

    def close(self) -> None:
        """Remove the bar."""
        self._display.remove(self._task)


def new_bar(name: str, total: int, start: int) -> TerminalBar | None:
    """Add a bar for a loop of `total` steps, of which `start` are done; None if the terminal cannot move its cursor."""
    global _display
    if _display is None or not _display.is_active:
        console = Console(stderr=True)
        if not console.is_terminal or console.is_dumb_terminal:
            return None
        _display = _Display(console)
    return TerminalBar(_display, name, total, start)
