"""Training of several fresh networks: serial on all cores, against one process per core with one thread each.

    python benchmarks/repeats.py            # Fashion-MNIST, ConvNet-3, IPC 10, dc-300, width 32

Both sides are `FreshNetworks.scores` in one process, in turn. Starting the workers is timed. The defaults of `workers`
and `spread_after` in `conf/runtime/auto.yaml` come from these figures.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import report
import torch

from dd_bench.data.fashion_mnist import fashion_mnist
from dd_bench.evaluation.fresh_networks import FreshNetworks
from dd_bench.models.architecture import Architecture
from dd_bench.models.convnet import ConvNet
from dd_bench.records.config_diff import shipped_config
from dd_bench.runtime.allocator import keep_freed_memory
from dd_bench.runtime.runtime import RuntimeConfig, resolve
from dd_bench.runtime.seeding import generator
from dd_bench.training.protocol import Protocol


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "repeats.json")
    args = parser.parse_args()
    keep_freed_memory()
    config = shipped_config("runtime", "auto") | {"device": "cpu"}
    runtime = resolve(RuntimeConfig.model_validate(config))
    protocol = Protocol.model_validate(shipped_config("protocol", "dc-300"))
    real = fashion_mnist(
        root=None, download=False, preprocess="normalise", val_fraction=0.0, device=runtime.device
    )
    index = real.train.draw(args.ipc, generator("cpu", 0, "init")).flatten()
    knobs = shipped_config("model", "convnet") | {"width": args.width}
    knobs = {k: v for k, v in knobs.items() if not k.startswith("_")}
    serial = FreshNetworks(
        Architecture(ConvNet, knobs, real.shape, 10, "convnet"),
        protocol,
        real.train.inputs(index),
        real.train.labels[index],
        real.test,
        None,
        real.flip,
        replace(runtime, workers=1),
    )
    spread = replace(serial, runtime=replace(runtime, workers=torch.get_num_threads(), spread_after=0))
    seconds: dict[str, list[float]] = {"serial": [], "spread": []}
    scores: dict[str, list[float]] = {}
    list(serial.scores({0: 0}, total=args.networks))  # warm-up of the compiler
    for i in range(args.rounds):
        for side in ("serial", "spread") if i % 2 == 0 else ("spread", "serial"):
            began = time.perf_counter()
            networks = serial if side == "serial" else spread
            found = dict(networks.scores({n: n for n in range(args.networks)}, total=args.networks))
            seconds[side].append(time.perf_counter() - began)
            scores[side] = [found[n] for n in sorted(found)]
    ratio = statistics.median(a / b for a, b in zip(seconds["serial"], seconds["spread"], strict=True))
    print(
        "| width | IPC | networks | serial s | one process per core s | ratio | serial acc % | spread acc % |"
    )
    print("|---|---|---|---|---|---|---|---|")
    means = [100 * statistics.fmean(scores[s]) for s in ("serial", "spread")]
    times = [statistics.median(seconds[s]) for s in ("serial", "spread")]
    print(
        f"| {args.width} | {args.ipc} | {args.networks} | {times[0]:.0f} | {times[1]:.0f} | **{ratio:.2f}** "
        f"| {means[0]:.2f} | {means[1]:.2f} |"
    )
    result = {
        "args": {k: v for k, v in vars(args).items() if k != "out"},
        "seconds": seconds,
        "scores": scores,
    }
    report.write(args.out, {"ratio": ratio, **result}, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
