"""The environment of a measurement, for records and sets: device, precision, flags and versions of torch.

This module does not import torch. `pipeline.provenance` reads the values.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(max_length=200)]
Number = Annotated[int, Field(ge=0, lt=2**31)]


class Environment(BaseModel):
    """Where and how a record was measured, or a set was distilled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Name = Field(description="kind of the device: cpu or cuda")
    name: Name = Field(description="name of the GPU, or of the CPU with its number of cores")
    devices: Number = Field(description="devices of this kind that torch finds; 1 for a CPU")
    processes: Number = Field(description="processes started by torchrun; 1 without it")
    precision: Literal["fp32", "tf32", "bf16"]
    flags: dict[Name, Name | bool] = Field(
        max_length=50, description="flags as torch returns them at the end, by their names without `torch.`"
    )
    torch: Name = Field(description="version with the tag of the build, e.g. 2.14.1+cu130")
    cuda: Name | None = Field(
        description="version of CUDA that torch was built for; None: built without CUDA"
    )
    cudnn: Number | None = Field(description="version of cuDNN that torch has loaded, e.g. 92400; None: none")
    driver: Name | None = Field(description="version of the NVIDIA driver; None: not on CUDA, or unknown")
    threads: Number = Field(description="threads of torch in the main process")
    workers: Number = Field(description="processes that train fresh networks in parallel")
    together: Number | None = Field(
        description="maximum number of networks trained as one batched network, at the end; None: no batched training"
    )
    graphs: Name | None = Field(
        default=None,
        description="number of steps recorded as CUDA graphs, or why recording failed; None: not used, or unknown",
    )
    compile_after: Number | None = Field(
        default=None,
        description="number of training images (28x28) from which networks are compiled; None: never, or unknown",
    )

    def summary(self) -> str:
        """Return the values as one line of text. Of the flags, only the deterministic algorithms are included."""
        parts = [f"{self.device}, {self.precision}", f"torch {self.torch}"]
        if self.device == "cuda":
            parts += [
                f"{self.devices} device(s)",
                f"cuDNN {self.cudnn}",
                f"driver {self.driver or 'unknown'}",
            ]
        if self.processes > 1:
            parts.append(f"{self.processes} processes")
        parts.append(f"{self.threads} thread(s), {self.workers} worker(s)")
        if self.together is not None:
            parts.append(f"{self.together} networks together")
        if self.graphs is not None:
            parts.append(f"CUDA graphs {self.graphs}")
        deterministic = self.flags.get("are_deterministic_algorithms_enabled")
        return "; ".join([*parts, f"deterministic {str(bool(deterministic)).lower()}"])

    def flags_text(self) -> str:
        """Return the flags as one line of text."""
        return ", ".join(f"{name} {str(value).lower()}" for name, value in self.flags.items())
