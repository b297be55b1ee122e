"""Recording of training dynamics: the time of a training with it, against the same training without it.

    python benchmarks/dynamics.py                    # Fashion-MNIST, ConvNet-3, width 32, ten epochs of 2,000 images
    python benchmarks/dynamics.py --compile always   # compiled networks, as in a training on all images

The variants run in this process, in turn, each time with an empty cache, on one thread. The time is the CPU time of the
process, so that other processes of the machine change it little. Loading the recorded predictions is included. All
networks have the same seed. The guard is their accuracy on their training images, which must be equal.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import report
import torch

from dd_bench.data.dataset import RealSet
from dd_bench.data.fashion_mnist import fashion_mnist
from dd_bench.models.architecture import Architecture
from dd_bench.models.convnet import ConvNet
from dd_bench.models.network import Network
from dd_bench.records.config_diff import shipped_config
from dd_bench.runtime.allocator import keep_freed_memory
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.context import RunContext
from dd_bench.runtime.runtime import Runtime, RuntimeConfig, resolve
from dd_bench.runtime.seeding import generator, seed_for
from dd_bench.teachers.dynamics import Outputs, training_dynamics
from dd_bench.teachers.trained_network import RealTraining, trained_network
from dd_bench.training.recipe import Recipe
from dd_bench.training.scoring import accuracy, eval_batches

SEED = seed_for(0, "dynamics")
"""Seed of the network of `training_dynamics`."""


def measured(work: Callable[[RunContext], Network], real: RealSet, runtime: Runtime) -> tuple[float, float]:
    """Call `work` with a context whose cache is empty. Return its CPU seconds, and the accuracy of its network."""
    with tempfile.TemporaryDirectory() as folder:
        ctx = RunContext(seed=0, runtime=runtime, cache=Cache(Path(folder)))
        began = time.process_time()
        net = work(ctx)
        seconds = time.process_time() - began
        return seconds, accuracy(net, eval_batches(net, real.train), runtime)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=2_000, help="number of training images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--compile", choices=("never", "always"), default="never")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    config = shipped_config("runtime", "one_thread") | {"compile": args.compile}
    runtime = resolve(RuntimeConfig.model_validate(config))
    real = fashion_mnist(
        root=None, download=False, preprocess="normalise", val_fraction=0.0, device=runtime.device
    )
    index = real.train.draw(args.images // real.num_classes, generator("cpu", 0, "images")).flatten()
    real = replace(real.train_only(), train=real.train.subset(index))
    knobs = {k: v for k, v in shipped_config("model", "convnet").items() if not k.startswith("_")}
    network = Architecture(ConvNet, knobs | {"width": args.width}, real.shape, real.num_classes, "convnet")
    recipe = Recipe.model_validate(
        shipped_config("method", "el2n")["teacher"] | {"epochs": args.epochs, "milestones": []}
    )

    training = RealTraining(real, network, recipe, runtime)

    def recorded(outputs: Outputs) -> Callable[[RunContext], Network]:
        return lambda ctx: training_dynamics(real, network, recipe, ctx, outputs=outputs).net

    sides: dict[str, Callable[[RunContext], Network]] = {
        "training": lambda ctx: trained_network(training, SEED, Path(ctx.cache.root) / "training")[0],
        "outputs=training": recorded("training"),
        "outputs=clean": recorded("clean"),
    }
    for work in sides.values():
        measured(work, real, runtime)  # compilation, and the first use of kernels
    rounds = [
        {name: measured(work, real, runtime) for name, work in sides.items()} for _ in range(args.rounds)
    ]
    seconds = {name: [r[name][0] for r in rounds] for name in sides}
    figures = {
        name: {
            "seconds": statistics.median(seconds[name]),
            **report.ratio_of(seconds[name], seconds["training"]),
            "accuracy": rounds[-1][name][1],
        }
        for name in sides
    }
    for name, figure in figures.items():
        print(
            f"{name:18} {figure['seconds']:7.2f} s, {figure['ratio']:.3f} of the training without recording"
        )
    name = "dynamics" if args.compile == "never" else "dynamics_compiled"
    out = args.out or Path(__file__).parent / "results" / f"{name}.json"
    settings = {k: getattr(args, k) for k in ("epochs", "images", "rounds", "width", "compile")}
    report.write(out, {"settings": settings, "sides": figures}, threads=1)


if __name__ == "__main__":
    main()
