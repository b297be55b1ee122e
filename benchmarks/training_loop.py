"""Our training loop against the usual PyTorch loop: images per second, ratio, and both accuracies.

    python benchmarks/training_loop.py            # Fashion-MNIST, ConvNet-3, IPC 10 and 50, width 32 and 128

Both train the same fresh networks on the same random set with the same recipe, and are scored on the same test images.
The allocator is per process, so each side runs in its own process. They take turns, one network each, and never run at
the same time. Our side uses the memory-retaining allocator (as every run does), bf16 if native, torch.compile and the
layout `compiled_layout`. Its warm-up is measured separately, with the number of images after which it has paid off. The
plain side uses float32, the default allocator, a DataLoader without workers and loss.item() in every step, as released
evaluation code does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import report
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from dd_bench.data.fashion_mnist import fashion_mnist
from dd_bench.models.architecture import Architecture
from dd_bench.models.convnet import ConvNet
from dd_bench.records.config_diff import shipped_config
from dd_bench.runtime.allocator import keep_freed_memory
from dd_bench.runtime.runtime import Runtime, RuntimeConfig, resolve
from dd_bench.runtime.seeding import generator, seeded, stream
from dd_bench.training.augment import Augment
from dd_bench.training.batches import fetch_from
from dd_bench.training.loop import train
from dd_bench.training.recipe import Recipe
from dd_bench.training.scoring import accuracy

KNOBS = {"depth": 3, "norm": "instancenorm", "activation": "relu", "pooling": "avg"}
DSA = "color_crop_cutout_flip_scale_rotate"


def recipe_for(images: int, n: int, augment: str) -> Recipe:
    epochs = max(2, images // n)
    return Recipe(
        optimizer="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4, batch_size=256, epochs=epochs,
        milestones=(epochs // 2 + 1,), gamma=0.1, reset_optimizer=True, augment=augment, augment_style="dsa",
        align_corners=False, cutmix=0.0, cutmix_beta=1.0,
    )  # fmt: skip


def plain(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, recipe: Recipe, seed: int) -> None:
    """Train with the usual loop of released code."""
    augment, draws = Augment(recipe.augment), stream("cpu", seed, "augment")
    shuffle = generator("cpu", seed, "order")
    loader = DataLoader(
        TensorDataset(x, y), recipe.batch_size, shuffle=True, num_workers=0, generator=shuffle
    )
    rate = recipe.lr

    def sgd() -> torch.optim.SGD:
        return torch.optim.SGD(
            net.parameters(), rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )

    optimizer, seen = sgd(), 0.0
    for epoch in range(recipe.epochs):
        if epoch in recipe.milestones:
            rate *= recipe.gamma
            optimizer = sgd()
        for images, labels in loader:
            loss = F.cross_entropy(net(augment.batch(images, draws)), labels)
            seen += loss.item() * len(images)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def worker(side: str, pipe: Connection, threads: int) -> None:
    """Train networks of one side on request; send seconds, number of images and test accuracy."""
    torch.set_num_threads(threads)
    if side == "ours":
        keep_freed_memory()
        config = shipped_config("runtime", "auto") | {"device": "cpu", "threads": threads}
        runtime = resolve(RuntimeConfig.model_validate(config))
    else:
        runtime = Runtime(torch.device("cpu"), "fp32", None, 1, 0)
    root = shipped_config("dataset", "fashion_mnist")["root"]
    real = fashion_mnist(
        root=root, download=False, preprocess="normalise", val_fraction=0.0, device=runtime.device
    )
    while (job := pipe.recv()) is not None:
        ipc, width, images, augment, seed = job
        index = real.train.draw(ipc, generator("cpu", 0, "init")).flatten()
        x, y = real.train.inputs(index), real.train.labels[index]
        net = Architecture(ConvNet, {**KNOBS, "width": width}, real.shape, 10, "convnet").fresh(
            seed, runtime.device
        )
        recipe = recipe_for(images, len(x), augment)
        began = time.perf_counter()
        if side == "ours":
            train(net, fetch_from(x, y), len(x), recipe, seed=seed, runtime=runtime, flip=True, compiled=True)
        else:
            with seeded("cpu", seed):
                plain(net, x, y, recipe, seed)
        seconds = time.perf_counter() - began
        pipe.send((seconds, recipe.epochs * len(x), accuracy(net, real.test.batches(1000), runtime)))


def compare(
    pipes: dict[str, Connection], ipc: int, width: int, augment: str, images: int, networks: int
) -> dict[str, Any]:
    """Train `networks` networks on each side in turn, and return one row of the table."""

    def request(side: str, images: int, seed: int) -> tuple[float, int, float]:
        pipes[side].send((ipc, width, images, augment, seed))
        return pipes[side].recv()  # type: ignore[no-any-return]

    short = 4 * 10 * ipc  # images of a warm-up: a few epochs, with both batch sizes
    warm_up = {side: request(side, short, 10_000)[0] for side in pipes}
    rows: dict[str, list[tuple[float, int, float]]] = {"plain": [], "ours": []}
    for i in range(networks):
        for side in ("plain", "ours") if i % 2 == 0 else ("ours", "plain"):
            rows[side].append(request(side, images, i))
    speed = {side: [n / s for s, n, _ in row] for side, row in rows.items()}
    score = {side: [a for _, _, a in row] for side, row in rows.items()}
    saved = 1 / statistics.median(speed["plain"]) - 1 / statistics.median(speed["ours"])  # seconds per image
    return {
        "ipc": ipc,
        "width": width,
        "augment": "DSA" if augment == DSA else "none",
        "networks": networks,
        "plain_img_s": statistics.median(speed["plain"]),
        "ours_img_s": statistics.median(speed["ours"]),
        **report.ratio_of(speed["ours"], speed["plain"]),
        "plain_accuracy": interval(score["plain"]),
        "ours_accuracy": interval(score["ours"]),
        "same_accuracy": accuracies_agree(score["plain"], score["ours"]),
        "warm_up_s": warm_up["ours"],
        "repaid_after_images": round(warm_up["ours"] / saved) if saved > 0 else None,
    }


def interval(values: list[float]) -> list[float]:
    from scipy import stats

    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return [statistics.fmean(values), half]


def accuracies_agree(a: list[float], b: list[float]) -> bool:
    """Accuracy guard: whether the means differ by at most the joint 95 % interval (root of the summed squares)."""
    (mean_a, half_a), (mean_b, half_b) = interval(a), interval(b)
    return abs(mean_a - mean_b) <= (half_a**2 + half_b**2) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument(
        "--images", type=int, default=15_000, help="training images per network, over all epochs"
    )
    parser.add_argument("--width", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--ipc", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--augment", nargs="+", default=["none", DSA])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "training_loop.json")
    args = parser.parse_args()
    context, pipes, processes = get_context("spawn"), {}, []
    for side in ("plain", "ours"):
        pipes[side], worker_pipe = context.Pipe()
        processes.append(context.Process(target=worker, args=(side, worker_pipe, args.threads), daemon=True))
        processes[-1].start()
    print(
        "| width | IPC | augment | plain img/s | ours img/s | ratio (range) "
        "| plain acc % | ours acc % | same | warm-up s | repaid after |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    results = []
    for augment in args.augment:
        for width in args.width:
            for ipc in args.ipc:
                r = compare(pipes, ipc, width, augment, args.images, args.networks)
                results.append(r)
                low, high = r["ratio_range"]
                (pm, ph), (om, oh) = r["plain_accuracy"], r["ours_accuracy"]
                print(
                    f"| {width} | {ipc} | {r['augment']} | {r['plain_img_s']:.0f} | {r['ours_img_s']:.0f} "
                    f"| **{r['ratio']:.2f}** ({low:.2f}-{high:.2f}) | {100 * pm:.2f} ± {100 * ph:.2f} "
                    f"| {100 * om:.2f} ± {100 * oh:.2f} | {'yes' if r['same_accuracy'] else 'NO'} "
                    f"| {r['warm_up_s']:.1f} | {r['repaid_after_images']} |",
                    flush=True,
                )
    for pipe in pipes.values():
        pipe.send(None)
    report.write(args.out, {"images_per_network": args.images, "results": results}, threads=args.threads)


if __name__ == "__main__":
    main()
