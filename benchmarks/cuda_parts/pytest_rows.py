"""A plug-in of pytest that writes the outcome of each test as a JSON line to the pipe `ROWS_PIPE`."""

from __future__ import annotations

import json
import os

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write one line for each test, and one for each failed setup or teardown."""
    if report.when == "call" or report.outcome != "passed":
        row = {
            "test": report.nodeid.partition("::")[2],
            "outcome": report.outcome,
            "seconds": round(report.duration, 2),
            "message": _message(report),
        }
        os.write(int(os.environ["ROWS_PIPE"]), (json.dumps(row) + "\n").encode())


def _message(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):  # of a skipped test: file, line, reason
        return report.longrepr[2][:200]
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else report.longreprtext
    return (text.strip().splitlines() or [""])[0][:200]
