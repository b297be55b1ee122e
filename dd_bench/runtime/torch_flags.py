"""Set and read torch's settings that change numbers: TF32, deterministic kernels, and the choice of cuDNN's kernels.

The settings belong to the process. `set_flags` therefore sets all of them for every run, so that a job of a sweep never
keeps the settings of the job before. Worker processes get the settings of their parent, see `workers`.

Torch has two interfaces for TF32, `allow_tf32` and `fp32_precision`, which must not be mixed. This module writes
`allow_tf32`. After a write to `fp32_precision`, torch (2.9 to 2.14) raises an error when it reads `allow_tf32`, and
its compiler does that in the kernels of convolutions and matrix products. Values are read through `fp32_precision`,
which is consistent after a write to either.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import backends

FLAGS = (
    "backends.cuda.matmul.fp32_precision",
    "backends.cudnn.conv.fp32_precision",
    "backends.cudnn.rnn.fp32_precision",
    "backends.mkldnn.matmul.fp32_precision",
    "backends.mkldnn.conv.fp32_precision",
    "backends.cuda.matmul.allow_bf16_reduced_precision_reduction",
    "backends.cudnn.benchmark",
    "backends.cudnn.deterministic",
    "are_deterministic_algorithms_enabled",
)
"""The flags in a record, by their names in torch."""


def set_flags(tf32: bool, deterministic: bool) -> None:
    """Set all flags of this process.

    Args:
        tf32: whether float32 matrix products, convolutions and recurrent layers may use TF32 on CUDA, which rounds
            their inputs to 10 bits of mantissa.
        deterministic: whether only kernels that give the same bits every time are used. Operations without such
            a kernel raise a RuntimeError.

    Raises:
        ValueError: `tf32` is false, and a flag that is not set here allows a lower precision.
    """
    torch.set_float32_matmul_precision("highest")  # also of oneDNN, which could use bfloat16 on a CPU
    backends.cuda.matmul.allow_tf32 = tf32
    backends.cudnn.allow_tf32 = tf32
    backends.cudnn.benchmark = False  # it chooses kernels by timing, so two runs could use different ones
    backends.cudnn.deterministic = deterministic
    # Read by cuBLAS when a process uses it for the first time. A later job may need deterministic kernels.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    now = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if now != (deterministic, False):  # the call imports the compiler, which takes seconds
        torch.use_deterministic_algorithms(deterministic)
    lower = {name: value for name, value in read_flags().items() if value in ("tf32", "bf16")}
    if lower and not tf32:
        name, value = next(iter(lower.items()))
        raise ValueError(
            f"torch.{name} must be 'ieee' or 'none' for a run without TF32, got {value!r}. "
            "Example: torch.backends.fp32_precision = 'none'"
        )


def read_flags() -> dict[str, str | bool]:
    """Return the current values of `FLAGS`.

    A precision is `ieee` (float32), `tf32`, `bf16`, or `none`, which is `ieee` unless a more general flag is set.
    """
    return {name: _read(name) for name in FLAGS}


def _read(name: str) -> Any:
    value: Any = torch
    for part in name.split("."):
        value = getattr(value, part)
    return value() if callable(value) else value


def current() -> tuple[bool, bool]:
    """Return `tf32` and `deterministic` of this process, the arguments of `set_flags` for another process."""
    return backends.cuda.matmul.fp32_precision == "tf32", torch.are_deterministic_algorithms_enabled()
