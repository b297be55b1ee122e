"""Choose the precision of a run from its configuration and the device.

- `fp32`: float32 everywhere, without TF32.
- `tf32`: float32, and on CUDA the matrix products and convolutions of the whole run use TF32, distillation included.
- `bf16`: fresh networks, frozen teachers and recovery from a teacher use autocast to bfloat16. All else is `fp32`.
"""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["fp32", "tf32", "bf16"]


def choose_precision(configured: Precision | Literal["auto"], device: torch.device) -> Precision:
    """Return the precision of a run. `auto` is bf16 if the device computes in bfloat16 natively, and else fp32.

    Raises:
        ValueError: the precision is tf32 and the device has no TF32.
    """
    if configured == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if configured == "tf32" and not has_tf32(device):
        raise ValueError(
            f"runtime.precision=tf32 requires a CUDA device of compute capability 8.0 or newer, got {device}. "
            "Example: runtime.precision=fp32"
        )
    return configured


def has_bf16(device: torch.device) -> bool:
    """Return whether the device computes in bfloat16 natively. Emulation is slower than float32."""
    if device.type != "cuda":
        return cpu_has_bf16()
    if not torch.cuda.is_available():
        return False
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def cpu_has_bf16() -> bool:
    """Return whether the CPU has instructions for bfloat16 (AVX512-BF16 or AMX)."""
    if hasattr(torch.cpu, "get_capabilities"):
        return any(bool(on) for name, on in torch.cpu.get_capabilities().items() if "bf16" in name)
    return bool(torch.cpu._is_avx512_bf16_supported())  # torch < 2.11


def has_tf32(device: torch.device) -> bool:
    """Return whether the device has TF32: NVIDIA GPUs since Ampere."""
    if device.type != "cuda" or torch.version.hip or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)
