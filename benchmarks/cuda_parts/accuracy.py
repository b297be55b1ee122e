"""Accuracy guard: the same evaluations of random images on CUDA and on a CPU, and with and without CUDA graphs.

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
    """Yield a row for each case: first in the precision of `runtime=auto`, then in float32.

    The rows of graphs are between these. A case without figures of a CPU has a row at the start, and is not measured.
    """
    known = {case: committed(case) for case in cases(card.datasets())}
    yield from (missing(case) for case, found in known.items() if found is None)
    measured = {case: found for case, found in known.items() if found is not None}
    chosen = dict(list(measured.items())[-1:]) if card.small else measured
    yield from against_cpu(card, chosen, "auto")
    yield from graph_guards(card)
    yield from against_cpu(card, chosen, "fp32")


def missing(case: Case) -> Row:
    """Return the row of a case without figures of a CPU."""
    return {**described(case), "verdict": "no results of a CPU"}


def described(case: Case) -> Row:
    return {
        "table": "CUDA against the CPU",
        **{"dataset": case.dataset, "protocol": case.protocol, "IPC": case.ipc, "width": case.width},
    }


def against_cpu(card: Card, chosen: dict[Case, Figures], precision: str) -> Iterator[Row]:
    """Yield a row for each case. As many sets and networks are measured as the CPU's figures have."""
    for case, cpu in chosen.items():
        sets = len({s for s, _ in cpu.scores})
        sets, networks = (1, 2) if card.small else (sets, len(cpu.scores) // sets)
        small = ["protocol.recipe.epochs=2", "protocol.recipe.milestones=[]"] if card.small else []
        began = card.time()
        record, warned = card.run([*case.overrides(sets, networks), f"runtime.precision={precision}", *small])
        seconds = card.time() - began
        cuda = {(s.set, s.network): s.value for s in record.scores}
        used = precision if record.environment is None else record.environment.precision
        yield {
            **described(case),
            "precision": used,
            **compared(cuda, cpu.scores),
            "seconds": round(seconds, 1),
            "data": {"cuda": list(cuda.values()), "cpu": cpu.source, "warnings": warned},
        }


def graph_guards(card: Card) -> Iterator[Row]:
    """Yield a row for hard labels, and one for stored labels of a teacher: the same networks with and without graphs.

    Both sides compute the same kernels, so their verdict should be "equal" with a difference of 0, or nearly 0.
    """
    networks, epochs = (2, 2) if card.small else (5, 40)
    for protocol in ("dsa-1000", "sre2l-kd-400-replay"):
        command = [
            "method=random", "dataset=digits", f"protocol={protocol}", "ipc=1" if card.small else "ipc=10",
            f"model.width={8 if card.small else 32}", "model.norm=batchnorm", "evaluator=controls",
            f"evaluator.num_networks={networks}", f"protocol.recipe.epochs={epochs}", "protocol.recipe.milestones=[]",
            "teachers.convnet_bn.recipe.epochs=2", f"runtime.together={networks}", "runtime.precision=fp32",
        ]  # fmt: skip
        found, warned = {}, []
        for graphs in ("auto", "never"):
            record, warnings = card.run([*command, f"runtime.graphs={graphs}"])
            scores = {s.network: s.value for s in record.scores if s.metric == record.main_metric}
            used = None if record.environment is None else record.environment.graphs
            found[graphs], warned = (scores, used), [*warned, *warnings]
        (graphed, used), (plain, _) = found["auto"], found["never"]
        mean, low, high = paired_difference([graphed[n] for n in plain], list(plain.values()))[:3]
        yield {
            "table": "The same networks with and without CUDA graphs, digits",
            "protocol": protocol,
            "networks": len(plain),
            "graphs": used or "none",
            "with graphs, %": f"{100 * fmean(graphed.values()):.2f}",
            "without, %": f"{100 * fmean(plain.values()):.2f}",
            "difference (paired)": points(mean, low, high),
            "verdict": verdict(low, high),
            "data": {"with": graphed, "without": plain, "warnings": warned},
        }


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
        "networks, CPU": len(b),
        "networks, CUDA": len(a),
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
    """Return the figures of a CPU for a case: those of an entry of the leaderboard, or of the reference file.

    An entry can have fewer than `NETWORKS` networks. The reference file is used if it has more.
    """
    candidates = [*entries(case), *reference_figures(case)]
    return max(candidates, key=lambda figures: len(figures.scores), default=None)


def entries(case: Case) -> Iterator[Figures]:
    """Yield the figures of the leaderboard's entries of a case."""
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
            yield Figures(scores, path.name)


def reference_figures(case: Case) -> Iterator[Figures]:
    """Yield the figures of the reference file, if it has the case."""
    if (found := reference().get(case.name)) is not None:
        scores = {(0, network): value for network, value in enumerate(found["accuracies"])}
        yield Figures(scores, REFERENCE.name)


def reference() -> dict[str, Any]:
    if not REFERENCE.exists():
        return {}
    known: dict[str, Any] = json.loads(REFERENCE.read_text())["cases"]
    return known


def measure_reference(datasets: Sequence[str], most: float) -> None:
    """Measure the cases with fewer than `NETWORKS` networks on the CPU in float32, and add each to the reference file.

    Args:
        datasets: datasets of the cases.
        most: cases with more than this many training images of 28x28 pixels and width 128, or their equivalent, are
            left out.
    """
    cpu = Card("cpu", small=False)
    for case in sorted(cases(datasets), key=cost):
        known_case = committed(case)
        if (known_case and len(known_case.scores) >= NETWORKS) or cost(case) > most:
            continue
        began = time.monotonic()
        record, _ = cpu.run(
            [*case.overrides(1, NETWORKS), "runtime.precision=fp32", f"runtime.together={NETWORKS}"]
        )
        known = reference()
        known[case.name] = {
            "accuracies": [s.value for s in sorted(record.scores, key=lambda s: s.network)],
            "seconds": round(time.monotonic() - began),
            "revision": record.code.revision,
        }
        report.write(REFERENCE, {"cases": known}, device=record.device)
        mean = 100 * fmean(known[case.name]["accuracies"])
        print(f"{case.name}: {mean:.2f} %, {known[case.name]['seconds']} s", flush=True)


def cost(case: Case) -> float:
    """Return the number of training images that take as long as the case with 28x28 pixels and width 128."""
    images = NETWORKS * 10 * case.ipc * {"dc-300": 301, "dsa-1000": 1001}[case.protocol]
    return images * (1 if case.dataset == "fashion_mnist" else 1 / 10) * (1 if case.width == 128 else 1 / 8)
