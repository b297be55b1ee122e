"""The environment of a measurement for its record: code revision, library versions, time and memory by stage."""

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
from dd_bench.records.environment import Environment
from dd_bench.records.record import Code, TeacherId
from dd_bench.runtime import distributed
from dd_bench.runtime.runtime import Runtime
from dd_bench.runtime.torch_flags import read_flags

LIBRARIES = ("torch", "torchvision", "kornia", "timm", "numpy", "scikit-learn", "hydra-core")


@cache
def code() -> Code:
    """Return the version and the git revision of the running code; the revision is None for an installed wheel.

    They are computed once, at the start of the process, because a later commit does not change the imported code.
    """
    root = Path(__file__).resolve().parents[2]
    revision = dirty = None
    if (root / ".git").exists():
        revision = _git(root, "rev-parse", "HEAD") or None
        # untracked methods count as changes; tables and documentation do not
        dirty = bool(_git(root, "status", "--porcelain", "--", "dd_bench", "conf", "methods", "evaluators"))
    return Code(version=__version__, numbers=NUMBERS_VERSION, revision=revision, dirty=dirty)


def _git(root: Path, *arguments: str) -> str:
    try:
        result = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that affect results.

    The result is cached, because reading the metadata of the packages takes 0.1 s, and must not be modified.
    """
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def environment(runtime: Runtime) -> Environment:
    """Return the environment of a run. The flags are read from torch, so they show what was used."""
    cuda = runtime.device.type == "cuda"
    return Environment(
        device=runtime.device.type,
        name=runtime.device_name(),
        devices=torch.cuda.device_count() if cuda else 1,
        processes=distributed.num_launched(),
        precision=runtime.precision,
        flags=read_flags(),
        torch=str(torch.__version__),
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version() if cuda else None,
        driver=_driver() if cuda else None,
        threads=torch.get_num_threads(),
        workers=runtime.workers,
        together=runtime.lock_step.networks if runtime.lock_step.networks > 1 else None,
        graphs=runtime.graphs.describe(),
        compile_after=runtime.compile_after,
    )


@cache
def _driver() -> str | None:
    """Return the version of the NVIDIA driver, or None if `nvidia-smi` does not give it."""
    from torch.utils import collect_env

    version = collect_env.get_nvidia_driver_version(collect_env.run)
    return version.splitlines()[0].strip() if version else None


class Stages:
    """Wall-clock seconds and peak memory in bytes of each stage of a run."""

    def __init__(self, device: torch.device):
        """Measure the memory of `device`."""
        self.seconds: dict[str, float] = {}
        self.peak_memory: dict[str, int] = {}
        self._device = device

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time inside the context to a stage, and update the peak memory of the stage.

        The memory is the resident memory on a CPU, and the allocated memory on CUDA.
        """
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
    """Reset the peak resident memory of this process (Linux only; elsewhere the peak covers the whole process)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_resident() -> int:
    """Return the peak resident memory of this process in bytes, without its worker processes."""
    status = Path("/proc/self/status")
    if status.exists() and (match := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(match[1]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def set_provenance(
    stages: Stages, seconds: dict[str, float], notes: list[str], runtime: Runtime, teachers: list[TeacherId]
) -> dict[str, Any]:
    """Return the content of `provenance.json`, which describes how a synthetic set was distilled."""
    content = {
        "seconds": seconds,
        "peak_memory": stages.peak_memory,
        "notes": notes,
        "device": runtime.describe(),
        "environment": environment(runtime).model_dump(),
        "versions": versions(),
        "code": code().model_dump(),
    }
    return content | ({"teachers": [t.model_dump() for t in teachers]} if teachers else {})
