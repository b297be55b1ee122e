"""Accuracy of the networks that docs/get_started/train_on_a_set.md trains, and of the entries of the same set.

    python benchmarks/plain_pytorch.py     # ten minutes on one core; writes benchmarks/results/plain_pytorch.json

It runs the code of the page, and trains `NETWORKS` networks of torchvision and of timm, of which the page trains one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dd_bench.hub.release import nearby_records, records_of
from dd_bench.synthetic import storage

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "get_started" / "train_on_a_set.md"
RESULT = ROOT / "benchmarks" / "results" / "plain_pytorch.json"
NETWORKS = 5
TORCHVISION = "torchvision(keep_size=1)"
TIMM = "timm(name=resnet10t)"
"""Names of the networks in records."""


def main() -> None:
    os.chdir(ROOT)  # the page names the set by its path in the repository
    torch.set_num_threads(1)
    names: dict[str, Any] = {"__name__": "example"}
    for example in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(example, str(PAGE), "exec"), names)

    def scores(network: Callable[[], nn.Module]) -> list[float]:
        return [names["accuracy_of"](network(), names["data"]) for _ in range(NETWORKS)]

    folder = names["syn"].folder
    records = [
        r
        for r in records_of(storage.digest(folder), nearby_records(folder))
        if r.protocol.name == "dc-300" and r.evaluator == "accuracy"
    ]

    def compared(model: str, own: list[float]) -> dict[str, Any]:
        (entry,) = (r for r in records if r.model == model)
        return {"scores": own, "entry": {"digest": entry.digest[:16], "scores": entry.sample()}}

    figures = {
        "set": folder.name,
        "networks": {
            "ConvNet": compared("convnet(width=32)", names["scores"]),
            "ResNet-18 of torchvision": compared(TORCHVISION, scores(names["torchvision_network"])),
            "ResNet-10-T of timm": compared(TIMM, scores(names["timm_network"])),
        },
        "torch": torch.__version__,
    }
    RESULT.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
