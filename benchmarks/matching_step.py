"""One step of DM and DataDAM with all classes grouped, against the per-class loop: seconds, ratio, same gradient.

    python benchmarks/matching_step.py            # 10 classes, 1x28x28, IPC 10, width 32 and 128

Plain is the released way: a forward of the real and of the synthetic batch for each class, the loss summed, one
backward; default allocator, in a process of its own. Ours is `DM.loss` and `DataDAM.loss` as the methods call
them, in a process that keeps its memory. They take turns on the same network, batches and augmentation records.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dd_bench import environment
from dd_bench.allocator import keep_freed_memory
from dd_bench.architecture import Architecture
from dd_bench.augment import Augment
from dd_bench.matching import mean_match
from dd_bench.methods.datadam import DataDAM, spatial_attention
from dd_bench.methods.dm import DM
from dd_bench.models.convnet import ConvNet
from dd_bench.runtime import cpu_name
from dd_bench.seeding import generator, stream

KNOBS = {"depth": 3, "norm": "instancenorm", "activation": "relu", "pooling": "avg"}
CLASSES = 10


def method_of(name: str) -> DM:
    knobs = {k: v for k, v in environment.shipped_config("method", name).items() if k != "_target_"}
    return DM(**knobs) if name == "dm" else DataDAM(**knobs)


def per_class(method: DM, net: ConvNet, real: Tensor, syn: Tensor) -> Tensor:
    """The loss as the released loops compute it: class after class, the real branch without a graph."""
    total = torch.zeros(())
    for c in range(CLASSES):
        with torch.no_grad():
            real_maps, wanted = net.activations(real[c])
        syn_maps, embedding = net.activations(syn[c])
        loss = mean_match(wanted[None], embedding[None])
        if isinstance(method, DataDAM):
            loss = method.lambda_mmd * loss
            for a, b in zip(real_maps[:-1], syn_maps[:-1], strict=True):
                loss = loss + mean_match(
                    spatial_attention(a, method.power)[None], spatial_attention(b, method.power)[None]
                )
            loss = method.scale * loss
        total = total + loss
    return total


def worker(side: str, pipe: Connection, threads: int) -> None:
    torch.set_num_threads(threads)
    if side == "ours":
        keep_freed_memory()
    while (job := pipe.recv()) is not None:
        name, width, ipc, batch_real, step = job
        method, augment = method_of(name), Augment("color_crop_cutout_flip_scale_rotate")
        net = Architecture(ConvNet, {**KNOBS, "width": width}, (1, 28, 28), CLASSES).fresh(
            step, torch.device("cpu")
        )
        net.requires_grad_(False)
        real = torch.randn(CLASSES, batch_real, 1, 28, 28, generator=generator("cpu", step, "real"))
        syn = torch.randn(CLASSES, ipc, 1, 28, 28, generator=generator("cpu", step, "syn")).requires_grad_()
        began = time.perf_counter()
        draw = augment.draw(CLASSES, stream("cpu", step, "augment"))
        if side == "ours":
            loss = method.loss(net, augment.apply(real, draw), augment.apply(syn, draw))
        else:  # each class augments its own two batches
            parts = [slice(c, c + 1) for c in range(CLASSES)]
            batches = [(augment.apply(real[p], draw[p])[0], augment.apply(syn[p], draw[p])[0]) for p in parts]
            loss = per_class(method, net, *map(list, zip(*batches, strict=True)))  # type: ignore[arg-type]
        loss.backward()
        seconds = time.perf_counter() - began
        pipe.send((seconds, loss.item(), syn.grad.numpy()))  # type: ignore[union-attr]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--width", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--ipc", type=int, nargs="+", default=[10])
    parser.add_argument("--batch-real", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "matching_step.json")
    args = parser.parse_args()
    context, pipes = get_context("spawn"), {}
    for side in ("plain", "ours"):
        pipes[side], theirs = context.Pipe()
        context.Process(target=worker, args=(side, theirs, args.threads), daemon=True).start()
    print(
        "| method | width | IPC | per-class ms | grouped ms | ratio (range) | gradient difference (relative) |"
    )
    print("|---|---|---|---|---|---|---|")
    results: list[dict[str, Any]] = []
    for name in ("dm", "datadam"):
        for width in args.width:
            for ipc in args.ipc:
                seconds: dict[str, list[float]] = {"plain": [], "ours": []}
                worst = 0.0
                for step in range(args.steps + 2):
                    gradients = {}
                    for side in ("plain", "ours") if step % 2 == 0 else ("ours", "plain"):
                        pipes[side].send((name, width, ipc, args.batch_real, step))
                        took, _, gradients[side] = pipes[side].recv()
                        if step >= 2:  # the first two warm the caches
                            seconds[side].append(took)
                    a, b = torch.as_tensor(gradients["plain"]), torch.as_tensor(gradients["ours"])
                    worst = max(worst, float((a - b).norm() / a.norm()))
                ratios = sorted(p / o for p, o in zip(seconds["plain"], seconds["ours"], strict=True))
                row = {
                    "method": name, "width": width, "ipc": ipc, "batch_real": args.batch_real,
                    "plain_ms": 1000 * statistics.median(seconds["plain"]),
                    "ours_ms": 1000 * statistics.median(seconds["ours"]),
                    "ratio": statistics.median(ratios), "ratio_range": [ratios[0], ratios[-1]],
                    "gradient_difference": worst, "steps": args.steps,
                }  # fmt: skip
                results.append(row)
                print(
                    f"| {name} | {width} | {ipc} | {row['plain_ms']:.0f} | {row['ours_ms']:.0f} "
                    f"| **{row['ratio']:.2f}** ({ratios[0]:.2f}-{ratios[-1]:.2f}) | {worst:.1e} |",
                    flush=True,
                )
    for pipe in pipes.values():
        pipe.send(None)
    machine = {"cpu": cpu_name(), "threads": args.threads, "versions": environment.versions()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(
        {"machine": machine, "code": environment.code().model_dump(), "results": results}, indent=2
    )
    args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
