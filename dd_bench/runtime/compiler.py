"""Check whether `torch.compile` can be used on a device. It translates networks to C++ (CPU) or Triton (CUDA)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import torch


def missing_for_compiling(device: torch.device) -> str | None:
    """Return what `torch.compile` needs on `device` and does not find, or None."""
    if device.type != "cuda":
        found = any(shutil.which(name) for name in ("c++", "g++", "clang++"))
        return None if found else "a C++ compiler (g++ or clang++) on the PATH"
    if importlib.util.find_spec("triton") is None:
        return "the package triton (Example: pip install triton)"
    if (capability := torch.cuda.get_device_capability(device)) < (7, 0):
        return f"a device of compute capability 7.0 or newer, got {capability[0]}.{capability[1]}"
    # Triton compiles a small C module at its first use, which starts its kernels
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "a C compiler (gcc or clang) on the PATH, or its name in the variable CC"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's header files (Debian and Ubuntu: apt install python3-dev)"
    return None
