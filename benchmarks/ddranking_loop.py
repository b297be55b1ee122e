"""Fresh networks per hour: ours compared with a loop written like DD-Ranking's. Both must have equal accuracy.

    python benchmarks/ddranking_loop.py                                     # dsa-1000, IPC 10, width 128, 20 networks
    python benchmarks/ddranking_loop.py --dataset digits --width 8 --ipc 2 --networks 2 --epochs 8     # a quick check

Both sides train fresh networks on the same random set with the same protocol and augmentation, on the same device.
`plain_network` is the usual loop of released evaluation code: a DataLoader that collates single images on the CPU,
blocking copies to the device, SGD that is not fused, `loss.item()` and the accuracy in every step, and one network
after the other, in float32 with torch's default flags, which allow TF32 in convolutions. Ours is `FreshNetworks` with
`runtime=auto`. The sides take turns, each with all its networks. Networks are initialised inside the clock and tested
outside of it.

The comparison is meant for a GPU. On a CPU, use `training_loop.py`, which also separates the allocators of the sides.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import report
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from training_loop import KNOBS, accuracies_agree, interval

from dd_bench.data.dataset import RealSet
from dd_bench.evaluation.fresh_networks import FreshNetworks
from dd_bench.models.architecture import Architecture
from dd_bench.models.convnet import ConvNet
from dd_bench.pipeline.compose import load_real_set
from dd_bench.records.config_diff import shipped_config
from dd_bench.runtime import torch_flags
from dd_bench.runtime.runtime import Runtime, RuntimeConfig, resolve
from dd_bench.runtime.seeding import generator, seed_for, seeded, stream
from dd_bench.training.augment import Augment
from dd_bench.training.protocol import Protocol
from dd_bench.training.recipe import Recipe
from dd_bench.training.scoring import accuracy


def plain_network(net: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, seed: int) -> None:
    """Train `net` on CPU tensors `images (n, c, h, w)` and `labels (n,)` with the usual loop of released code."""
    device = next(net.parameters()).device
    augment, draws = Augment(recipe.augment), stream(device, seed, "augment")
    loader = DataLoader(
        TensorDataset(images, labels),
        recipe.batch_size,
        shuffle=True,
        generator=generator("cpu", seed, "order"),
    )
    net.train()
    rate = recipe.lr
    for epoch in range(recipe.epochs):
        if epoch == 0 or epoch in recipe.milestones:  # the released code creates a new optimiser at the decay
            rate *= recipe.gamma if epoch else 1.0
            optimizer = torch.optim.SGD(
                net.parameters(), rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
            )
        loss_sum, right, seen = 0.0, 0.0, 0
        for batch, target in loader:
            x, y = batch.to(device), target.to(device)
            logits = net(augment.batch(x, draws))
            loss = F.cross_entropy(logits, y)
            loss_sum += loss.item() * len(y)
            right += (logits.argmax(1) == y).float().mean().item() * len(y)
            seen += len(y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@contextmanager
def default_flags() -> Iterator[None]:
    """Allow TF32 in convolutions, as torch does by default and released code does not change."""
    before = torch_flags.current()
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch_flags.set_flags(*before)


class Sides:
    """The two ways to train the networks of one measurement. Each returns the trained networks."""

    def __init__(self, real: RealSet, runtime: Runtime, *, ipc: int, width: int, protocol: Protocol) -> None:
        """Draw the random set of `ipc` images per class of `real`, which is on the device of `runtime`."""
        self.real, self.runtime, self.protocol = real, runtime, protocol
        index = real.train.draw(ipc, generator(real.train.labels.device, 0, "init")).flatten()
        self.images, self.labels = real.train.inputs(index), real.train.labels[index]
        self.architecture = Architecture(
            ConvNet, {**KNOBS, "width": width}, real.shape, real.num_classes, "convnet"
        )

    def ours(self, seeds: list[int]) -> list[nn.Module]:
        """Train the networks with `FreshNetworks`."""
        fresh = FreshNetworks(
            self.architecture, self.protocol, self.images, self.labels, self.real.test, None, self.real.flip,
            self.runtime,
        )  # fmt: skip
        return [net for _, net in fresh.networks(dict(enumerate(seeds)), len(seeds))]

    def plain(self, seeds: list[int]) -> list[nn.Module]:
        """Train the networks one after the other with `plain_network`, with torch's default flags."""
        images, labels = self.images.cpu(), self.labels.cpu()
        nets = []
        with default_flags():
            for seed in seeds:
                with seeded(self.runtime.device, seed_for(seed, "dropout")):
                    net = self.architecture.fresh(seed_for(seed, "init"), self.runtime.device)
                    plain_network(net, images, labels, self.protocol.recipe, seed)
                nets.append(net)
        return nets

    def timed(
        self, side: Callable[[list[int]], list[nn.Module]], seeds: list[int]
    ) -> tuple[float, list[float]]:
        """Return the seconds of training networks with these seeds, and their test accuracies."""
        self._wait()
        began = time.perf_counter()
        nets = side(seeds)
        self._wait()
        seconds = time.perf_counter() - began
        return seconds, [accuracy(net, self.real.test.batches(1000), self.runtime) for net in nets]

    def _wait(self) -> None:
        if self.runtime.device.type == "cuda":
            torch.cuda.synchronize(self.runtime.device)


def compare(
    sides: Sides, *, networks: int, rounds: int = 2, plain_networks: int | None = None
) -> dict[str, Any]:
    """Measure both sides in turn, and return their networks per hour, the ratio and the accuracies.

    Each round of ours trains `networks` networks, and each round of the plain loop `plain_networks` (default:
    the same number), which may be fewer because its time is proportional to their number. A first round of two networks
    warms up both sides.
    """
    plain_networks = plain_networks or networks
    counts = {"plain": plain_networks, "ours": networks}
    for side in (sides.plain, sides.ours):
        side([10_000, 10_001])
    speed: dict[str, list[float]] = {"plain": [], "ours": []}
    scores: dict[str, list[float]] = {"plain": [], "ours": []}
    for i in range(rounds):
        for name in ("plain", "ours") if i % 2 == 0 else ("ours", "plain"):
            first = i * max(counts.values())
            seeds = [seed_for(0, "network", n) for n in range(first, first + counts[name])]
            seconds, accuracies = sides.timed(getattr(sides, name), seeds)
            speed[name].append(3600 * counts[name] / seconds)
            scores[name] += accuracies
    return {
        "networks": networks,
        "plain_networks": plain_networks,
        "plain_networks_per_hour": statistics.median(speed["plain"]),
        "ours_networks_per_hour": statistics.median(speed["ours"]),
        **report.ratio_of(speed["ours"], speed["plain"]),
        "plain_accuracy": interval(scores["plain"]),
        "ours_accuracy": interval(scores["ours"]),
        "same_accuracy": accuracies_agree(scores["plain"], scores["ours"]),
    }


def shortened(protocol: str, epochs: int | None) -> Protocol:
    """Return a shipped protocol; with `epochs`, shorter, and with its milestone at the middle."""
    config = shipped_config("protocol", protocol)
    if epochs is not None:
        config = {**config, "recipe": {**config["recipe"], "epochs": epochs, "milestones": [epochs // 2 + 1]}}
    return Protocol.model_validate(config)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--protocol", default="dsa-1000")
    parser.add_argument("--epochs", type=int, help="default: those of the protocol")
    parser.add_argument("--ipc", type=int, nargs="+", default=[10])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument(
        "--plain-networks", type=int, help="networks of the plain loop per round; default: all"
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ddranking_loop.json")
    args = parser.parse_args()
    runtime = resolve(
        RuntimeConfig.model_validate(shipped_config("runtime", "auto") | {"device": args.device})
    )
    real = load_real_set([f"dataset={args.dataset}"])[0].to(runtime.device)
    protocol = shortened(args.protocol, args.epochs)
    results = []
    for ipc in args.ipc:
        sides = Sides(real, runtime, ipc=ipc, width=args.width, protocol=protocol)
        row = compare(sides, networks=args.networks, rounds=args.rounds, plain_networks=args.plain_networks)
        results.append({"ipc": ipc, "width": args.width, "protocol": args.protocol, **row})
        print(
            f"IPC {ipc}, width {args.width}: {row['plain_networks_per_hour']:.0f} and "
            f"{row['ours_networks_per_hour']:.0f} networks an hour, ratio {row['ratio']:.2f}, accuracy "
            f"{100 * row['plain_accuracy'][0]:.2f} ± {100 * row['plain_accuracy'][1]:.2f} and "
            f"{100 * row['ours_accuracy'][0]:.2f} ± {100 * row['ours_accuracy'][1]:.2f} %, "
            f"{'equal' if row['same_accuracy'] else 'NOT EQUAL'}",
            flush=True,
        )
    report.write(args.out, {"epochs": protocol.recipe.epochs, "results": results}, device=runtime.describe())


if __name__ == "__main__":
    main()
