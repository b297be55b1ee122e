"""Progress: bars of nested loops in a terminal, log lines above them, and plain lines without a terminal."""

import io
import logging
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from dd_bench.runtime import progress, terminal_bars
from dd_bench.runtime.progress import Progress, bars


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal for standard output and error, and a handler of the root logger that writes to it."""
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    # not sys itself, because pytest replaces its streams before the test starts
    streams = SimpleNamespace(stdout=stream, stderr=stream, modules=sys.modules)
    monkeypatch.setattr(progress, "sys", streams)
    monkeypatch.setattr(terminal_bars, "sys", streams)
    monkeypatch.setattr(
        terminal_bars, "Console", lambda **_: Console(file=stream, force_terminal=True, width=100)
    )
    root, handler = logging.getLogger(), logging.StreamHandler(stream)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield stream
    assert handler.stream is stream, "the handler writes to the terminal again"
    root.removeHandler(handler)
    root.setLevel(level)


def test_bars_are_nested(terminal):
    with Progress("jobs", 2) as jobs, Progress("distill", 10, 4) as loop:
        jobs.advance_to(1, {})
        loop.advance_to(10, {"loss": 0.25})
        terminal_bars._display._bars.refresh()
        last = terminal.getvalue().rpartition("jobs")[2]
        assert "1/2" in last and "distill" in last and "10/10" in last and "loss 0.25" in last
        assert "0:00:00 left" in last
    assert not terminal_bars._display.is_active


def test_log_lines_are_printed_above_the_bars(terminal):
    path = "/a/long/path" * 20
    with Progress("distill", 10):
        logging.getLogger("dd_bench.test").info("saved %s", path)
        assert f"saved {path}\n" in terminal.getvalue(), "not wrapped, so it can be copied"
    logging.getLogger("dd_bench.test").info("after the bar")
    assert terminal.getvalue().endswith("after the bar\n")


def test_bar_is_drawn_a_few_times_a_second(terminal, monkeypatch):
    shown = []
    monkeypatch.setattr(terminal_bars.TerminalBar, "show", lambda self, done, text: shown.append(done))
    now = iter(range(1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now) * 0.05)
    with Progress("distill", 100) as loop:
        for step in range(100):
            loop.advance_to(step + 1, {})
    assert len(shown) <= 26 and shown[-1] == 100


def test_bars_are_removed_after_an_error(terminal):
    with pytest.raises(ValueError, match="stop"), Progress("jobs", 2), Progress("distill", 10):
        raise ValueError("stop")
    assert not terminal_bars._display.is_active and terminal_bars.sys.stderr is terminal


@pytest.mark.parametrize("reason", ["hidden", "worker", "pipe", "dumb", "no steps"])
def test_no_bar(terminal, monkeypatch, reason):
    """Hidden, in a worker process, without a terminal, in one that cannot move its cursor, or without a step."""
    if reason == "worker":
        monkeypatch.setattr(progress.multiprocessing, "parent_process", lambda: object())
    if reason == "pipe":
        monkeypatch.setattr(terminal, "isatty", lambda: False, raising=False)
    if reason == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    with bars(reason != "hidden"), Progress("distill", 0 if reason == "no steps" else 10) as loop:
        loop.advance_to(5, {})
    assert terminal.getvalue() == ""


def test_lines_once_a_minute(messages, monkeypatch):
    now = iter(range(10_000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now) * 20.0)
    with Progress("distill", 9) as loop, Progress("networks", 9, lines=False) as quiet:
        for step in range(9):
            loop.advance_to(step + 1, {"loss": 0.5})
            quiet.advance_to(step + 1, {})
    assert messages[0].startswith("distill 2/9  loss 0.5  about") and len(messages) == 5
    assert not any("networks" in m for m in messages)


@pytest.mark.parametrize(("widgets", "shown"), [(None, [True, False]), (object(), [True, True])])
def test_a_notebook_without_widgets_has_only_the_outermost_bar(monkeypatch, widgets, shown):
    """Nested bars of text move the cursor, which a notebook does not support."""
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(progress, "find_spec", lambda name: widgets)
    with progress.Progress("networks", 2) as outer, progress.Progress("epochs", 3) as inner:
        assert [p._bar is not None for p in (outer, inner)] == shown
    assert progress._NotebookBar.open_bars == 0
