"""Device, precision, compilation and number of processes, configured in `conf/runtime/`.

`auto` is resolved from the properties of the machine and never from timings in a run, because the same machine and
configuration must give the same bytes. The rules are based on the measurements in `benchmarks/`.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from dd_bench.runtime import distributed

_THREADS = torch.get_num_threads()  # torch's default, before a job of a sweep changes it
Positive = Annotated[int, Field(ge=1)]


class RuntimeConfig(BaseModel):
    """The keys of `conf/runtime/*.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str
    precision: Literal["auto", "fp32", "bf16"]
    compile: Literal["auto", "always", "never"]
    compile_after: int = Field(ge=0, description="number of training images from which networks are compiled")
    workers: Positive | Literal["auto"]
    spread_after: int = Field(
        ge=0, description="number of training images from which worker processes are used"
    )
    threads: Positive | Literal["auto"]
    deterministic: bool


@dataclass(frozen=True)
class Runtime:
    """The settings of a run, with `auto` resolved.

    Attributes:
        device: device of the data and the networks.
        autocast: whether fresh networks (in training and testing) and frozen teachers use bfloat16. The teachers'
            statistics are in float32. Distillation is in float32, except recovery from a teacher.
        compile_after: `torch.compile` is used if a training processes at least this number of images; None: never.
        workers: number of processes that train fresh networks in parallel. With `auto` it is 1 on CUDA, where several
            networks are trained with vmap.
        spread_after: worker processes are started if a training processes at least this number of images.
        vmap: whether several fresh networks are trained as one batched network.
    """

    device: torch.device
    autocast: bool
    compile_after: int | None
    workers: int
    spread_after: int
    vmap: bool

    def uses_processes(self, images: int) -> bool:
        """Return whether training on `images` images in total is long enough to start worker processes."""
        return images >= self.spread_after

    def in_float32(self) -> Runtime:
        """Return this runtime with float32, e.g. for distillation, which subtracts nearly equal means."""
        return replace(self, autocast=False)

    def describe(self) -> str:
        """Return the device, precision and number of workers as one line for the record."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else cpu_name()
        return f"{name} ({'bf16' if self.autocast else 'fp32'} networks, {self.workers} worker(s))"


def resolve(config: RuntimeConfig) -> Runtime:
    """Resolve `auto`, and set torch's number of threads and deterministic mode.

    Raises:
        ValueError: the device is not available, or `compile` is `always` and there is no compiler.
    """
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"runtime.device must be auto, cpu, cuda or cuda:N, got {name!r}: {error}. Example: runtime.device=cpu"
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(
            f"runtime.device={name} is not available: torch finds {count} CUDA device(s). Use runtime.device=cpu"
        )
    device = distributed.local_device(device)
    torch.set_num_threads(_THREADS if config.threads == "auto" else config.threads)
    if config.deterministic != torch.are_deterministic_algorithms_enabled():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(config.deterministic)
    on_cpu = device.type == "cpu"
    if on_cpu:  # suppress the compiler's warning about missing CUDA
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    bf16 = config.precision == "bf16" or (config.precision == "auto" and (not on_cpu or cpu_has_bf16()))
    compiler = not on_cpu or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if config.compile == "always" and not compiler:
        raise ValueError(
            "runtime.compile=always requires a C++ compiler (g++ or clang++) on the PATH. Use runtime.compile=auto"
        )
    after = {"never": None, "always": 0, "auto": config.compile_after if compiler else None}[config.compile]
    workers = (torch.get_num_threads() if on_cpu else 1) if config.workers == "auto" else config.workers
    if distributed.num_launched() > 1:
        workers = 1  # torchrun has already started the processes
    return Runtime(device, bf16, after, workers, config.spread_after, vmap=not on_cpu)


def cpu_has_bf16() -> bool:
    """Return whether the CPU supports bfloat16 natively (AVX512-BF16 or AMX). Emulation is slower than float32."""
    if hasattr(torch.cpu, "get_capabilities"):
        return any(bool(on) for name, on in torch.cpu.get_capabilities().items() if "bf16" in name)
    return bool(torch.cpu._is_avx512_bf16_supported())  # torch < 2.11


def cpu_name() -> str:
    """Return the CPU's model name and its number of cores."""
    name = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{name or 'CPU'}, {os.cpu_count()} cores"
