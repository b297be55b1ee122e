"""Accuracy guard: the same evaluations of random images on CUDA and on a CPU, with the interval of the difference.

The figures of the CPU are those of the leaderboard's entries, and of `benchmarks/results/cuda_reference.json`, which
`python benchmarks/cuda_check.py --reference cpu` measures in float32. Both sides train the same networks on the same
sets: a seed gives the same initial weights, batches and augmentations on every device.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import report
from scipy.special import stdtrit

from cuda_parts.card import Card, Row
from dd_bench.records.intervals import LEVEL, paired_difference, std

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "benchmarks" / "results" / "cuda_reference.json"
MARGIN = 0.02
"""Largest difference of accuracy that counts as equal."""
NETWORKS = 20


class Case(NamedTuple):
    """An evaluation of random images."""

    dataset: str
    protocol: str
    ipc: int
    width: int

    @property
    def name(self) -> str:
        """Return the name of the case in the JSON file."""
        return f"{self.dataset} {self.protocol} ipc{self.ipc} width{self.width}"

    def overrides(self, sets: int, networks: int) -> list[str]:
        """Return the overrides of `dd-bench run` for this number of sets, and of networks per set."""
        return [
            "method=random", f"dataset={self.dataset}", f"protocol={self.protocol}", f"ipc={self.ipc}",
            f"model.width={self.width}", f"num_sets={sets}", f"evaluator.num_networks={networks}",
        ]  # fmt: skip


class Figures(NamedTuple):
    """Accuracies by set and network, and the file that has them."""

    scores: dict[tuple[int, int], float]
    source: str


def cases(datasets: Sequence[str]) -> list[Case]:
    """Return the cases in the order of importance."""
    return [
        Case(dataset, protocol, ipc, width)
        for dataset in datasets
        for width, protocol, ipc in product((128, 32), ("dsa-1000", "dc-300"), (10, 1))
    ]


def rows(card: Card) -> Iterator[Row]:
    """Yield a row for each case with figures of a CPU: first in the precision of `runtime=auto`, then in float32."""
    known = {case: found for case in cases(card.datasets()) if (found := committed(case))}
    chosen = dict(list(known.items())[-1:]) if card.small else known
    for precision, (case, cpu) in product(("auto", "fp32"), chosen.items()):
        sets = len({s for s, _ in cpu.scores})
        sets, networks = (1, 2) if card.small else (sets, len(cpu.scores) // sets)
        small = ["protocol.recipe.epochs=2", "protocol.recipe.milestones=[]"] if card.small else []
        began = card.time()
        record, warned = card.run([*case.overrides(sets, networks), f"runtime.precision={precision}", *small])
        seconds = card.time() - began
        cuda = {(s.set, s.network): s.value for s in record.scores}
        used = precision if record.environment is None else record.environment.precision
        row = {
            "table": "CUDA against the CPU",
            **{"dataset": case.dataset, "protocol": case.protocol, "IPC": case.ipc, "width": case.width},
            "precision": used,
            **compared(cuda, cpu.scores),
            "seconds": round(seconds, 1),
            "data": {"cuda": list(cuda.values()), "cpu": cpu.source, "warnings": warned},
        }
        yield row


def compared(cuda: dict[tuple[int, int], float], cpu: dict[tuple[int, int], float]) -> Row:
    """Return the means, the difference with its intervals, and the verdict on Welch's interval."""
    a, b = list(cuda.values()), list(cpu.values())
    low, high = welch_interval(a, b)
    both = sorted(cuda.keys() & cpu.keys())  # a set and a network: the same images and seed on both sides
    pairs = [cuda[k] for k in both], [cpu[k] for k in both]
    paired = points(*paired_difference(*pairs)[:3]) if len(both) > 1 else ""
    return {
        "CPU, %": f"{100 * fmean(b):.2f}",
        "CUDA, %": f"{100 * fmean(a):.2f}",
        "networks": len(a),
        "difference (Welch)": points(fmean(a) - fmean(b), low, high),
        "difference (paired)": paired,
        "verdict": verdict(low, high),
    }


def points(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"


def welch_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the 95 % confidence interval of `mean(a) - mean(b)` (Welch, 1947)."""
    difference = fmean(a) - fmean(b)
    va, vb = std(a) ** 2 / len(a), std(b) ** 2 / len(b)
    if va + vb == 0:
        return difference, difference
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * (va + vb) ** 0.5
    return difference - half, difference + half


def verdict(low: float, high: float, margin: float = MARGIN) -> str:
    """Return `equal` if the interval lies within the margin, `different` if it excludes 0, and else `too few`."""
    if -margin <= low and high <= margin:
        return "equal"
    return "different" if low > 0 or high < 0 else "too few"


def committed(case: Case) -> Figures | None:
    """Return the figures of a CPU for a case: those of an entry of the leaderboard, or of the reference file."""
    model = "convnet" if case.width == 128 else f"convnet(width={case.width})"
    folder = ROOT / "leaderboards" / "entries" / case.dataset
    for path in sorted(folder.glob(f"{case.dataset}-random-ipc{case.ipc}-*.json")):
        entry = json.loads(path.read_text())
        if (entry["model"], entry["protocol"]["name"], entry["evaluator"]) == (
            model,
            case.protocol,
            "accuracy",
        ):
            scores = {(s["set"], s["network"]): s["value"] for s in entry["scores"]}
            return Figures(scores, path.name)
    found = reference().get(case.name)
    if found is None:
        return None
    scores = {(0, network): value for network, value in enumerate(found["accuracies"])}
    return Figures(scores, REFERENCE.name)


def reference() -> dict[str, Any]:
    if not REFERENCE.exists():
        return {}
    known: dict[str, Any] = json.loads(REFERENCE.read_text())["cases"]
    return known


def measure_reference(datasets: Sequence[str], most: float) -> None:
    """Measure the cases without figures on the CPU in float32, and add each to the reference file.

    Args:
        datasets: datasets of the cases.
        most: cases with more than this many training images of 28x28 pixels and width 128, or their equivalent, are
            left out.
    """
    cpu = Card("cpu", small=False)
    for case in sorted(cases(datasets), key=cost):
        if committed(case) or cost(case) > most:
            continue
        began = time.monotonic()
        record, _ = cpu.run(
            [*case.overrides(1, NETWORKS), "runtime.precision=fp32", f"runtime.together={NETWORKS}"]
        )
        known = reference()
        known[case.name] = {
            "accuracies": [s.value for s in sorted(record.scores, key=lambda s: s.network)],
            "seconds": round(time.monotonic() - began),
        }
        report.write(REFERENCE, {"cases": known}, device=record.device)
        mean = 100 * fmean(known[case.name]["accuracies"])
        print(f"{case.name}: {mean:.2f} %, {known[case.name]['seconds']} s", flush=True)


def cost(case: Case) -> float:
    """Return the number of training images that take as long as the case with 28x28 pixels and width 128."""
    images = NETWORKS * 10 * case.ipc * {"dc-300": 301, "dsa-1000": 1001}[case.protocol]
    return images * (1 if case.dataset == "fashion_mnist" else 1 / 10) * (1 if case.width == 128 else 1 / 8)
