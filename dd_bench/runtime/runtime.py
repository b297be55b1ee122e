"""Device, precision, compilation and number of processes, configured in `conf/runtime/`.

`auto` is resolved from the properties of the machine and never from timings in a run, because the same machine and
configuration must give the same bytes. The rules are based on the measurements in `benchmarks/`.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from dd_bench.runtime import distributed
from dd_bench.runtime.compiler import compile_after_on_cpu, missing_for_compiling
from dd_bench.runtime.lock_step import LockStep
from dd_bench.runtime.precision import Precision, choose_precision, has_bf16
from dd_bench.runtime.step_graphs import StepGraphs
from dd_bench.runtime.torch_flags import set_flags

_THREADS = torch.get_num_threads()  # torch's default, before a job of a sweep changes it
Positive = Annotated[int, Field(ge=1)]
TOGETHER_CUDA = 20
"""Maximum number of networks trained in lock step on CUDA with `together=auto`. Not yet measured on a GPU."""


class RuntimeConfig(BaseModel):
    """The keys of `conf/runtime/*.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str
    precision: Literal["auto", "fp32", "tf32", "bf16"]
    compile: Literal["auto", "always", "never"]
    compile_after: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        description="number of training images from which networks are compiled on a CPU; auto: measured, by CPU"
    )
    compile_after_cuda: int = Field(ge=0, description="the same on CUDA")
    workers: Positive | Literal["auto"]
    spread_after: int = Field(
        ge=0, description="number of training images from which worker processes are used"
    )
    threads: Positive | Literal["auto"]
    together: Positive | Literal["auto"]
    graphs: Literal["auto", "never"]
    deterministic: bool


@dataclass(frozen=True)
class Runtime:
    """The settings of a run, with `auto` resolved.

    Attributes:
        device: device of the data and the networks.
        precision: fp32, tf32 or bf16. With bf16, fresh networks (in training and testing) and frozen teachers use
            bfloat16. The teachers' statistics are in float32. Distillation is in float32, except recovery from a
            teacher. With tf32, all of the run may use TF32.
        compile_after: `torch.compile` is used if a training processes at least this number of images; None: never.
        workers: number of processes that train fresh networks in parallel. With `auto` it is 1 on CUDA, where several
            networks are trained in lock step.
        spread_after: worker processes are started if a training processes at least this number of images.
        lock_step: how many fresh networks are trained as one batched network.
        graphs: whether a step of such a training is run as one CUDA graph, and whether this was possible.
        notes: settings that could not be used as configured, for the log and the record.
    """

    device: torch.device
    precision: Precision
    compile_after: int | None
    workers: int
    spread_after: int
    lock_step: LockStep = field(default_factory=lambda: LockStep(1))
    graphs: StepGraphs = field(default_factory=lambda: StepGraphs(False))
    notes: tuple[str, ...] = ()

    @property
    def autocast(self) -> bool:
        """Whether fresh networks and frozen teachers use bfloat16."""
        return self.precision == "bf16"

    def uses_processes(self, images: int) -> bool:
        """Return whether training on `images` images in total is long enough to start worker processes."""
        return images >= self.spread_after

    def in_float32(self) -> Runtime:
        """Return this runtime without bfloat16, e.g. for distillation, which subtracts nearly equal means.

        With bf16, the result is fp32: torch's flags do not allow TF32 then. With tf32, the result is tf32.
        """
        return replace(self, precision="fp32") if self.autocast else self

    def identity(self) -> dict[str, Any]:
        """Return what trained weights depend on, for the keys of teachers, experts and labels.

        The keys existed before `tf32`, so they contain `precision` only if it is `tf32`.
        """
        tf32 = {"precision": self.precision} if self.precision == "tf32" else {}
        return {"autocast": self.autocast, "device": self.device.type, **tf32}

    def describe(self) -> str:
        """Return the device, precision and number of workers as one line for the record."""
        return f"{self.device_name()} ({self.precision} networks, {self.workers} worker(s))"

    def device_name(self) -> str:
        """Return the name of the GPU, or the name of the CPU and its number of cores."""
        return _name(self.device)


def default_device_name() -> str:
    """Return `Runtime.device_name` of the device that `runtime.device=auto` chooses."""
    return _name(choose_device("auto"))


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def resolve(config: RuntimeConfig) -> Runtime:
    """Resolve `auto`, and set torch's number of threads and its flags (see `torch_flags`) for this process.

    Raises:
        ValueError: the device or its precision is not available, or `compile` is `always` and networks cannot be
            compiled.
    """
    device = _available(choose_device(config.device), config.device)
    precision = choose_precision(config.precision, device)
    torch.set_num_threads(_THREADS if config.threads == "auto" else config.threads)
    set_flags(tf32=precision == "tf32", deterministic=config.deterministic)
    on_cpu = device.type == "cpu"
    if on_cpu:  # suppress the compiler's warning about missing CUDA
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    notes = []
    if precision == "bf16" and not has_bf16(device):
        notes.append(
            f"runtime.precision=bf16 is emulated on {device}, which is slower than float32. "
            "For float32, use runtime.precision=fp32"
        )
    missing = None if config.compile == "never" else missing_for_compiling(device)
    if missing and config.compile == "always":
        raise ValueError(f"runtime.compile=always requires {missing}. Example: runtime.compile=auto")
    if missing:
        notes.append(f"networks are not compiled: torch.compile requires {missing}")
    on_this_cpu = compile_after_on_cpu() if config.compile_after == "auto" else config.compile_after
    threshold = on_this_cpu if on_cpu else config.compile_after_cuda
    after = {"never": None, "always": 0, "auto": None if missing else threshold}[config.compile]
    workers = (torch.get_num_threads() if on_cpu else 1) if config.workers == "auto" else config.workers
    if distributed.num_launched() > 1:
        workers = 1  # torchrun has already started the processes
    together = (1 if on_cpu else TOGETHER_CUDA) if config.together == "auto" else config.together
    graphs = StepGraphs(config.graphs == "auto" and not on_cpu)
    return Runtime(
        device, precision, after, workers, config.spread_after, LockStep(together), graphs, tuple(notes)
    )


def choose_device(name: str) -> torch.device:
    """Return the device of a configuration; `auto` is CUDA if it is available, and else the CPU.

    Raises:
        ValueError: `name` is not the name of a device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"runtime.device must be auto, cpu, cuda or cuda:N, got {name!r}: {error}. Example: runtime.device=cpu"
        ) from error
    return distributed.local_device(device)


def _available(device: torch.device, configured: str) -> torch.device:
    """Return `device`. The check asks the driver and does not initialise CUDA.

    Raises:
        ValueError: torch does not find this device.
    """
    if device.type != "cuda" or (device.index or 0) < (count := torch.cuda.device_count()):
        return device
    if count and torch.device("cuda" if configured == "auto" else configured).index is None:
        raise ValueError(
            f"the process with LOCAL_RANK={device.index} needs the GPU {device}, but torch finds {count} CUDA "
            f"device(s). Start at most {count} process(es) on this machine. Example: torchrun --nproc_per_node {count}"
        )
    raise ValueError(
        f"runtime.device={configured} is not available: torch finds {count} CUDA device(s). Use runtime.device=cpu"
    )


def cpu_name() -> str:
    """Return the CPU's model name and its number of cores."""
    name = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{name or 'CPU'}, {os.cpu_count()} cores"
