"""What a record says of the world it was measured in: code revision, library versions, memory by stage."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from dd_bench import NUMBERS_VERSION, __version__
from dd_bench.records.record import Code, TeacherId
from dd_bench.runtime.runtime import Runtime

LIBRARIES = ("torch", "torchvision", "kornia", "timm", "numpy", "scikit-learn", "hydra-core")


@cache
def code() -> Code:
    """Returns the revision of the checkout that runs; None for an installed wheel.

    Asked once a process, at its start: what runs is what was imported, whatever is committed meanwhile.
    """
    root = Path(__file__).resolve().parents[2]
    revision = dirty = None
    if (root / ".git").exists():
        revision = _git(root, "rev-parse", "HEAD") or None
        # a method that is not committed yet is a change too; a table or the README is none
        dirty = bool(_git(root, "status", "--porcelain", "--", "dd_bench", "conf", "methods", "evaluators"))
    return Code(version=__version__, numbers=NUMBERS_VERSION, revision=revision, dirty=dirty)


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that touch numbers."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }


class Stages:
    """Wall-clock seconds and peak memory of each stage of a run."""

    def __init__(self, device: torch.device):
        """Takes the device whose memory counts."""
        self.seconds: dict[str, float] = {}
        self.peak_memory: dict[str, int] = {}
        self._device = device

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time of the block to the stage and keeps its peak memory: resident (CPU) or allocated (CUDA)."""
        cuda = self._device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            _reset_peak_resident()
        began = time.perf_counter()
        try:
            yield
        finally:
            if cuda:
                torch.cuda.synchronize(self._device)
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - began, 3)
            peak = torch.cuda.max_memory_allocated(self._device) if cuda else peak_resident()
            self.peak_memory[stage] = max(self.peak_memory.get(stage, 0), peak)


def _reset_peak_resident() -> None:
    """Sets Linux's high-water mark of this process to its present size; elsewhere the mark is of the whole run."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_resident() -> int:
    """Returns the high-water mark of resident memory in bytes; worker processes are not in it."""
    status = Path("/proc/self/status")
    if status.exists() and (match := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(match[1]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def of_set(
    stages: Stages, seconds: dict[str, float], notes: list[str], runtime: Runtime, teachers: list[TeacherId]
) -> dict[str, Any]:
    """Returns the content of `provenance.json`: how a synthetic set was made."""
    made = {
        "seconds": seconds,
        "peak_memory": stages.peak_memory,
        "notes": notes,
        "device": runtime.describe(),
        "versions": versions(),
        "code": code().model_dump(),
    }
    return made | ({"teachers": [t.model_dump() for t in teachers]} if teachers else {})
