"""Training of experts: one process per core against serial training, and an expert's epoch against the plain loop.

    python benchmarks/experts.py            # Fashion-MNIST, ConvNet-3, width 32, with the DSA of MTT's experts

The variants run in this process, in turn, each time with an empty cache. Starting the workers is timed. In addition to
the plain training loop, an expert writes its snapshots and its checkpoint once per epoch.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import report
import torch

from dd_bench.data.dataset import RealSet
from dd_bench.data.fashion_mnist import fashion_mnist
from dd_bench.models.architecture import Architecture
from dd_bench.models.convnet import ConvNet
from dd_bench.records.config_diff import shipped_config
from dd_bench.runtime.allocator import keep_freed_memory
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.context import RunContext
from dd_bench.runtime.runtime import Runtime, RuntimeConfig, resolve
from dd_bench.runtime.seeding import generator
from dd_bench.teachers.experts import experts
from dd_bench.training.batches import fetch_split
from dd_bench.training.loop import train
from dd_bench.training.recipe import Recipe


def seconds_of(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def train_experts(real: RealSet, network: Architecture, recipe: Recipe, runtime: Runtime, count: int) -> None:
    """Train the experts in a temporary cache."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        ctx = RunContext(seed=0, runtime=runtime, cache=Cache(work / "cache"))
        epochs = tuple(range(recipe.epochs + 1))
        experts(real, network, recipe, ctx, count=count, epochs=epochs, dtype="float32", gradient_rule=None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--images", type=int, default=12_000, help="number of training images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "experts.json")
    args = parser.parse_args()
    keep_freed_memory()
    config = shipped_config("runtime", "auto") | {"device": "cpu", "compile": "never"}
    runtime = resolve(RuntimeConfig.model_validate(config))
    real = fashion_mnist(
        root=None, download=False, preprocess="normalise", val_fraction=0.0, device=runtime.device
    )
    index = real.train.draw(args.images // real.num_classes, generator("cpu", 0, "images")).flatten()
    real = replace(real.train_only(), train=real.train.subset(index))
    knobs = {k: v for k, v in shipped_config("model", "convnet").items() if not k.startswith("_")}
    network = Architecture(ConvNet, knobs | {"width": args.width}, real.shape, real.num_classes, "convnet")
    recipe = Recipe.model_validate(
        shipped_config("method", "mtt")["experts"]["recipe"] | {"epochs": args.epochs, "milestones": []}
    )
    passed = args.experts * args.epochs * len(real.train)

    def loop() -> None:
        for i in range(args.experts):
            net = network.fresh(i, runtime.device)
            options = {"seed": i, "runtime": runtime, "flip": real.flip}
            train(net, fetch_split(real.train), len(real.train), recipe, **options)

    alone = replace(runtime, workers=1)
    cores = replace(runtime, workers=torch.get_num_threads(), spread_after=0)
    sides = {
        "plain training loop": loop,
        "experts, one after the other": lambda: train_experts(real, network, recipe, alone, args.experts),
        "experts, one process a core": lambda: train_experts(real, network, recipe, cores, args.experts),
    }
    loop()  # warm-up
    took: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, work in sides.items():
            took[name].append(seconds_of(work))
    rates = {name: passed / statistics.median(seconds) for name, seconds in took.items()}
    plain, serial, spread = rates.values()
    figures = {
        "experts": args.experts,
        "epochs": args.epochs,
        "images": len(real.train),
        "width": args.width,
        "images_per_second": rates,
        "expert_epoch_over_loop": serial / plain,
        "processes_over_serial": spread / serial,
        "seconds": took,
    }
    report.write(args.out, figures, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
