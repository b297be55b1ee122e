"""The tests marked `gpu`: one row each, as soon as it has ended.

ResNet18 with BatchNorm in lock step is the first one, because no simulation could judge it. Those that compile
networks are the last ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cuda_parts.card import Card, Row

ROOT = Path(__file__).resolve().parents[2]


def rows(card: Card) -> Iterator[Row]:
    """Yield the outcome of every test. Only files with the marker are collected, because all take half a minute."""
    files = sorted(str(p) for p in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in p.read_text())
    for chosen in ("resnet18", "not compil and not resnet18", "compil"):
        reader, writer = os.pipe()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-k", chosen),
                *("-p", "no:cacheprovider", "-p", "cuda_parts.pytest_rows", *files),
            ],
            cwd=ROOT,
            env={**os.environ, "ROWS_PIPE": str(writer)},
            pass_fds=[writer],
        )
        os.close(writer)
        with os.fdopen(reader) as lines:
            yield from map(json.loads, lines)
        if process.wait() > 1:  # 0: all passed, 1: some failed
            raise RuntimeError(f"pytest ended with status {process.returncode}")
