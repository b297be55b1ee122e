"""The JSON file of a benchmark: its figures, and the machine and revision on which they were measured."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dd_bench.pipeline import provenance
from dd_bench.runtime.runtime import cpu_name


def write(path: Path, figures: dict[str, Any], **machine: Any) -> None:
    """Write `figures` to a JSON file with the CPU's name and instructions, the versions and `machine`.

    `capability` is the name of the instructions that torch uses, e.g. AVX2. Example of `machine`: `threads=2`.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    described = {"cpu": cpu_name(), "capability": capability, **machine, "versions": provenance.versions()}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": described, "code": provenance.code().model_dump(), **figures}, indent=2)
    path.write_text(text + "\n")


def ratio_of(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, Any]:
    """Return the median and the range of the ratios of the two sides of a benchmark, which took turns."""
    ratios = sorted(a / b for a, b in zip(numerators, denominators, strict=True))
    return {"ratio": statistics.median(ratios), "ratio_range": [ratios[0], ratios[-1]]}
