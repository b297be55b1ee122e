"""The tests marked `gpu`: one row each."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from cuda_parts.card import Card, Row

ROOT = Path(__file__).resolve().parents[2]


def rows(card: Card) -> Iterator[Row]:
    """Yield the outcome of every test. Only files with the marker are collected, because all take half a minute."""
    files = sorted(str(p) for p in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in p.read_text())
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
        subprocess.run([sys.executable, "-m", "pytest", *options, *files], cwd=ROOT, check=False)
        if not report.exists():
            raise RuntimeError("pytest has written no report")
        cases = list(ElementTree.parse(report).iter("testcase"))
    for case in cases:
        problem = next((c for c in case if c.tag in ("failure", "error", "skipped")), None)
        yield {
            "test": f"{case.get('classname', '').split('.')[-1]}.{case.get('name')}",
            "outcome": "passed" if problem is None else {"failure": "failed"}.get(problem.tag, problem.tag),
            "seconds": float(case.get("time", 0)),
            "message": "" if problem is None else first_line(problem.get("message", "")),
        }


def first_line(message: str) -> str:
    return (message.strip().splitlines() or [""])[0][:200]
