"""Accuracy guard of a precision: fresh networks in bf16 (or tf32) against the same networks in fp32.

    python benchmarks/precision.py --device cuda                     # bf16, Fashion-MNIST, width 128, 20 networks
    python benchmarks/precision.py --device cuda --precision tf32

Network i has the same seed on both sides, so its initial weights, batches and augmentation are equal, and the
differences of accuracy are paired. The guard passes if the 95 % confidence interval of the mean difference lies within
`--margin`, and fails if it lies outside. An interval that contains an end of the margin needs more networks.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import report
import torch

from dd_bench.data.dataset import RealSet
from dd_bench.evaluation.fresh_networks import FreshNetworks
from dd_bench.models.architecture import Architecture
from dd_bench.models.convnet import ConvNet
from dd_bench.pipeline import provenance
from dd_bench.pipeline.compose import load_real_set
from dd_bench.records.config_diff import shipped_config
from dd_bench.records.intervals import t_interval
from dd_bench.runtime.allocator import keep_freed_memory
from dd_bench.runtime.runtime import Runtime, RuntimeConfig, resolve
from dd_bench.runtime.seeding import generator
from dd_bench.training.protocol import Protocol


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["bf16", "tf32"], default="bf16")
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--protocols", nargs="+", default=["dc-300", "dsa-1000"])
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--margin", type=float, default=0.01, help="largest difference that counts as equal")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "precision.json")
    args = parser.parse_args()
    if args.networks < 2:
        parser.error(f"--networks must be an integer >= 2, got {args.networks}")
    keep_freed_memory()
    device = set_precision(args.device, "fp32").device
    real = load_real_set([f"dataset={args.dataset}"])[0].to(device)
    rows: list[dict[str, Any]] = []
    figures = {"args": {k: v for k, v in vars(args).items() if k != "out"}, "rows": rows}
    print(f"| protocol | IPC | fp32 acc % | {args.precision} acc % | difference (95 % CI) | n | guard |")
    print("|---|---|---|---|---|---|---|")
    for protocol in args.protocols:
        for ipc in args.ipc:
            networks = fresh_networks(real, protocol, ipc, args.width, set_precision(args.device, "fp32"))
            row: dict[str, Any] = {"protocol": protocol, "ipc": ipc}
            for precision in ("fp32", args.precision):
                runtime = set_precision(args.device, precision)
                row[precision], row[f"{precision} seconds"] = accuracies(networks, runtime, args.networks)
            row |= compare(row[args.precision], row["fp32"], args.margin)
            rows.append(row)
            environment = provenance.environment(runtime).model_dump()
            report.write(args.out, figures, environment=environment)  # after each row: a cut run is a result
            a, b = (100 * fmean(row[p]) for p in ("fp32", args.precision))
            mean, low, high = (100 * row[name] for name in ("difference", "low", "high"))
            print(
                f"| {protocol} | {ipc} | {a:.2f} | {b:.2f} | {mean:+.2f} ({low:+.2f} to {high:+.2f}) | {args.networks} "
                f"| {row['guard']} |",
                flush=True,
            )
    sys.exit(any(row["guard"] == "failed" for row in rows))


def set_precision(device: str, precision: str) -> Runtime:
    """Return the runtime of one side, and set torch's flags for it."""
    config = shipped_config("runtime", "auto") | {"device": device, "precision": precision}
    return resolve(RuntimeConfig.model_validate(config))


def fresh_networks(real: RealSet, protocol: str, ipc: int, width: int, runtime: Runtime) -> FreshNetworks:
    """Return networks that are trained on random real images, the same for both sides."""
    index = real.train.draw(ipc, generator(real.train.labels.device, 0, "init")).flatten()
    knobs = {k: v for k, v in shipped_config("model", "convnet").items() if not k.startswith("_")}
    return FreshNetworks(
        architecture=Architecture(ConvNet, knobs | {"width": width}, real.shape, real.num_classes, "convnet"),
        protocol=Protocol.model_validate(shipped_config("protocol", protocol)),
        images=real.train.inputs(index),
        labels=real.train.labels[index],
        test=real.test,
        val=None,
        flip=real.flip,
        runtime=runtime,
    )


def accuracies(networks: FreshNetworks, runtime: Runtime, count: int) -> tuple[list[float], float]:
    """Train `count` networks under a runtime. Return their accuracies by seed, and the seconds."""
    began = time.perf_counter()
    found = dict(replace(networks, runtime=runtime).scores({n: n for n in range(count)}, total=count))
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)
    return [found[n] for n in range(count)], round(time.perf_counter() - began, 3)


def compare(lower: list[float], exact: list[float], margin: float) -> dict[str, Any]:
    """Return the mean paired difference, its 95 % interval, and whether the interval lies within the margin."""
    differences = [a - b for a, b in zip(lower, exact, strict=True)]
    low, high = t_interval(differences)
    guard = "too few networks"
    if -margin <= low and high <= margin:
        guard = "passed"
    elif high < -margin or low > margin:
        guard = "failed"
    return {"difference": fmean(differences), "low": low, "high": high, "guard": guard}


if __name__ == "__main__":
    main()
