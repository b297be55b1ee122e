"""Accuracy of the ConvNet that docs/get_started/train_on_a_set.md trains, and of the entry of the same set.

    python benchmarks/plain_pytorch.py     # about a minute on one core; writes benchmarks/results/plain_pytorch.json

It runs the code of the page up to the list `scores`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import torch

from dd_bench.hub.release import nearby_records, records_of
from dd_bench.synthetic import storage

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "get_started" / "train_on_a_set.md"
RESULT = ROOT / "benchmarks" / "results" / "plain_pytorch.json"


def main() -> None:
    os.chdir(ROOT)  # the page names the set by its path in the repository
    torch.set_num_threads(1)
    names: dict[str, Any] = {"__name__": "example"}
    for example in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(example, str(PAGE), "exec"), names)
        if "scores" in names:
            break
    folder = names["syn"].folder
    records = records_of(storage.digest(folder), nearby_records(folder))
    (entry,) = (r for r in records if r.protocol.name == "dc-300" and r.model == "convnet(width=32)")
    figures = {
        "set": folder.name,
        "scores": names["scores"],
        "entry": {"digest": entry.digest[:16], "scores": entry.sample()},
        "torch": torch.__version__,
    }
    RESULT.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
