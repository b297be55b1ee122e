"""How to compute, never what: device, precision, compilation, processes. `conf/runtime/` holds the choices.

`auto` is resolved by what the machine is, never by timing inside a run: the same machine and the same
configuration must give the same bytes. The rules were chosen by `benchmarks/`, whose figures are committed.
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

_THREADS = torch.get_num_threads()  # torch's own choice, before a job of a sweep made another
Positive = Annotated[int, Field(ge=1)]


class RuntimeConfig(BaseModel):
    """The keys of `conf/runtime/*.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str
    precision: Literal["auto", "fp32", "bf16"]
    compile: Literal["auto", "always", "never"]
    compile_after: int = Field(ge=0, description="compile once an evaluation trains on this many images")
    workers: Positive | Literal["auto"]
    spread_after: int = Field(ge=0, description="start worker processes once it trains on this many images")
    threads: Positive | Literal["auto"]
    deterministic: bool


@dataclass(frozen=True)
class Runtime:
    """The resolved choices.

    Attributes:
        device: where the data and the networks live.
        autocast: bfloat16 for training and testing fresh networks and for frozen teachers, whose statistics stay in
            float32; distillation itself stays in float32, but for recovery from a teacher.
        compile_after: images from which `torch.compile` repays its warm-up; None for never.
        workers: processes that train fresh networks side by side; 1 on CUDA, where repeats are vmapped.
        vmap: whether repeats are trained as one batched network.
    """

    device: torch.device
    autocast: bool
    compile_after: int | None
    workers: int
    spread_after: int
    vmap: bool

    def uses_processes(self, images: int) -> bool:
        """Whether training on `images` images in all is worth starting worker processes."""
        return images >= self.spread_after

    def in_float32(self) -> Runtime:
        """Returns the same runtime in float32: distillation subtracts near-equal means."""
        return replace(self, autocast=False)

    def describe(self) -> str:
        """Returns one line for the record."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else cpu_name()
        return f"{name} ({'bf16' if self.autocast else 'fp32'} networks, {self.workers} worker(s))"


def resolve(config: RuntimeConfig) -> Runtime:
    """Turns `auto` into choices and sets torch's threads and determinism.

    Raises:
        ValueError: the device is not there, or there is no compiler to compile with.
    """
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"runtime.device={name!r} is none of auto, cpu, cuda, cuda:1, ...: {error}"
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(
            f"runtime.device={name}, but torch sees {count} CUDA device(s). Use runtime.device=cpu"
        )
    device = distributed.local_device(device)
    torch.set_num_threads(_THREADS if config.threads == "auto" else config.threads)
    if config.deterministic != torch.are_deterministic_algorithms_enabled():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(config.deterministic)
    on_cpu = device.type == "cpu"
    if on_cpu:  # the compiler warns of a missing CUDA that nobody asked for
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    bf16 = config.precision == "bf16" or (config.precision == "auto" and (not on_cpu or cpu_has_bf16()))
    compiler = not on_cpu or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if config.compile == "always" and not compiler:
        raise ValueError(
            "runtime.compile=always needs a C++ compiler (g++ or clang++) on the PATH. Use runtime.compile=auto"
        )
    after = {"never": None, "always": 0, "auto": config.compile_after if compiler else None}[config.compile]
    workers = (torch.get_num_threads() if on_cpu else 1) if config.workers == "auto" else config.workers
    if distributed.num_launched() > 1:
        workers = 1  # the processes are there already
    return Runtime(device, bf16, after, workers, config.spread_after, vmap=not on_cpu)


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 natively (AVX512-BF16 or AMX); emulated it is slower than float32."""
    if hasattr(torch.cpu, "get_capabilities"):
        return any(bool(on) for name, on in torch.cpu.get_capabilities().items() if "bf16" in name)
    return bool(torch.cpu._is_avx512_bf16_supported())  # torch < 2.11


def cpu_name() -> str:
    """Returns the CPU's model name and its number of cores."""
    name = ""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        lines = listing.read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{name or 'CPU'}, {os.cpu_count()} cores"
