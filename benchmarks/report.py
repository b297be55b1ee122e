"""What every benchmark writes: its figures, the machine and the revision they were measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dd_bench.pipeline import provenance
from dd_bench.runtime.runtime import cpu_name


def write(path: Path, figures: dict[str, Any], **machine: Any) -> None:
    """Writes `figures` to a JSON file; `machine` adds to the CPU's name and the versions, e.g. `threads=2`."""
    said = {"cpu": cpu_name(), **machine, "versions": provenance.versions()}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": said, "code": provenance.code().model_dump(), **figures}, indent=2)
    path.write_text(text + "\n")
