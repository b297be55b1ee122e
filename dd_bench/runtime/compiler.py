"""Whether and when `torch.compile` is used on a device, and the memory layout of compiled networks."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import torch

COMPILE_AFTER = 30_000
"""Training images (28x28) from which networks are compiled on a CPU.

On a CPU with AVX512-BF16, the warm-up was repaid after 4,221 to 54,644 images, depending on the width and the size of
the set (`benchmarks/results/training_loop.json`).
"""

COMPILE_AFTER_BY_CAPABILITY = {"AVX2": 250_000}
"""The same for CPUs with these capabilities, see `torch.backends.cpu.get_cpu_capability`.

On a CPU with AVX2 and without AVX-512, it was repaid after 254,940 images at 10 images per class, and after 40,188 at
50 (`benchmarks/results/training_loop_avx2.json`).
"""


def missing_for_compiling(device: torch.device) -> str | None:
    """Return what `torch.compile` needs on `device` and does not find, or None.

    It translates networks to C++ on a CPU, and to Triton on CUDA.
    """
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


def compile_after_on_cpu() -> int:
    """Return the number of training images (28x28) from which networks are compiled on this CPU."""
    return COMPILE_AFTER_BY_CAPABILITY.get(torch.backends.cpu.get_cpu_capability(), COMPILE_AFTER)


def compiled_layout(device: torch.device) -> torch.memory_format:
    """Return the memory layout of images and weights in which compiled networks train fastest on `device`.

    It is channels-last, except on a CPU with AVX2 and without AVX-512, where a training step of ConvNet-3 in float32 is
    slower in channels-last (docs/performance/training.md).
    """
    only_avx2 = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"
    return torch.contiguous_format if only_avx2 else torch.channels_last
