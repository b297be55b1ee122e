"""One step of DM and DataDAM with all classes in one batch, against a loop over classes: time, ratio, gradient.

    python benchmarks/matching_step.py            # 10 classes, 1x28x28, IPC 10, width 32 and 128

"plain" is the released implementation: for each class a forward pass of the real and of the synthetic batch, a sum of
the losses, and one backward pass. It runs in its own process with the default allocator. Our side is `DM.loss` and
`DataDAM.loss` as the methods call them, in processes with the memory-retaining allocator: "grouped" is eager, as in a
short run, and "compiled" uses channels-last, as in a run long enough for compilation. "default allocator" is
"grouped" in a process with the default allocator, which no run of dd_bench uses on glibc. All take turns on the same
network, batches and augmentation.
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
from torch import Tensor

from dd_bench.distillation.matching import mean_match
from dd_bench.methods.datadam import DataDAM, spatial_attention
from dd_bench.methods.dm import DM
from dd_bench.models.architecture import Architecture
from dd_bench.models.convnet import ConvNet
from dd_bench.records.config_diff import shipped_config
from dd_bench.runtime.allocator import keep_freed_memory
from dd_bench.runtime.seeding import generator, stream
from dd_bench.training.augment import Augment

KNOBS = {"depth": 3, "norm": "instancenorm", "activation": "relu", "pooling": "avg"}
CLASSES = 10
SIDES = ("plain", "default allocator", "grouped", "compiled")
CASES = ((32, 32), (32, 64), (128, 64))  # width, real images per class


def method_of(name: str) -> DM:
    knobs = {k: v for k, v in shipped_config("method", name).items() if not k.startswith("_")}
    return DM(**knobs) if name == "dm" else DataDAM(**knobs)


def per_class(method: DM, net: ConvNet, real: Tensor, syn: Tensor) -> Tensor:
    """Return the loss as in the released code: class by class, the real branch without a graph."""
    total = torch.zeros(())
    for c in range(CLASSES):
        with torch.no_grad():
            real_maps, real_embedding = net.activations(real[c])
        syn_maps, syn_embedding = net.activations(syn[c])
        loss = mean_match(real_embedding[None], syn_embedding[None])
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
    if side in ("grouped", "compiled"):
        keep_freed_memory()
    compiled: dict[str, Any] = {}
    while (job := pipe.recv()) is not None:
        name, width, ipc, batch_real, step = job
        method, augment = method_of(name), Augment("color_crop_cutout_flip_scale_rotate")
        net = Architecture(ConvNet, {**KNOBS, "width": width}, (1, 28, 28), CLASSES, "convnet").fresh(
            step, torch.device("cpu")
        )
        net.requires_grad_(False)
        real = torch.randn(CLASSES, batch_real, 1, 28, 28, generator=generator("cpu", step, "real"))
        syn = torch.randn(CLASSES, ipc, 1, 28, 28, generator=generator("cpu", step, "syn")).requires_grad_()
        began = time.perf_counter()
        draw = augment.draw(CLASSES, stream("cpu", step, "augment"))
        if side in ("default allocator", "grouped"):
            loss = method.loss(net, augment.apply(real, draw), augment.apply(syn, draw))
        elif side == "compiled":
            if name not in compiled:
                compiled[name] = torch.compile(method.loss, dynamic=False)
            net = net.to(memory_format=torch.channels_last)
            loss = compiled[name](net, augment.apply(real, draw), augment.apply(syn, draw))
        else:  # augments the two batches of each class separately
            parts = [slice(c, c + 1) for c in range(CLASSES)]
            batches = [(augment.apply(real[p], draw[p])[0], augment.apply(syn[p], draw[p])[0]) for p in parts]
            loss = per_class(method, net, *map(list, zip(*batches, strict=True)))  # type: ignore[arg-type]
        loss.backward()
        seconds = time.perf_counter() - began
        pipe.send((seconds, loss.item(), syn.grad.numpy()))  # type: ignore[union-attr]


def compare(
    pipes: dict[str, Connection], name: str, width: int, ipc: int, batch_real: int, steps: int
) -> dict[str, Any]:
    """Take `steps` steps on each side in turn; report the largest relative difference of the image gradients."""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    worst = dict.fromkeys(SIDES, 0.0)
    for step in range(steps + 2):
        gradients = {}
        for side in SIDES if step % 2 == 0 else SIDES[::-1]:
            pipes[side].send((name, width, ipc, batch_real, step))
            took, _, gradients[side] = pipes[side].recv()
            if step >= 2:  # the first two are a warm-up of caches and compiler
                seconds[side].append(took)
        plain = torch.as_tensor(gradients["plain"])
        for side in SIDES:
            difference = float((torch.as_tensor(gradients[side]) - plain).norm() / plain.norm())
            worst[side] = max(worst[side], difference)
    row: dict[str, Any] = {
        "method": name,
        "width": width,
        "ipc": ipc,
        "batch_real": batch_real,
        "steps": steps,
    }
    for side in SIDES:
        row[side] = {
            "ms": 1000 * statistics.median(seconds[side]),
            **report.ratio_of(seconds["plain"], seconds[side]),
            "gradient_difference": worst[side],
        }
    return row


def table_row(row: dict[str, Any]) -> str:
    cells = [
        *(str(row[key]) for key in ("method", "width", "ipc", "batch_real")),
        f"{row['plain']['ms']:.0f}",
    ]
    for side in SIDES[1:]:
        low, high = row[side]["ratio_range"]
        cells += [f"{row[side]['ms']:.0f}", f"**{row[side]['ratio']:.2f}** ({low:.2f}-{high:.2f})"]
    cells.append(", ".join(f"{row[side]['gradient_difference']:.0e}" for side in SIDES[1:]))
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--ipc", type=int, nargs="+", default=[10])
    parser.add_argument(
        "--case", type=int, nargs=2, action="append", metavar=("WIDTH", "REAL"), help="default: all of CASES"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "matching_step.json")
    args = parser.parse_args()
    context, pipes = get_context("spawn"), {}
    for side in SIDES:
        pipes[side], worker_pipe = context.Pipe()
        context.Process(target=worker, args=(side, worker_pipe, args.threads), daemon=True).start()
    print(
        "| method | width | IPC | real | per-class ms | default allocator ms | ratio (range) | grouped ms "
        "| ratio (range) | compiled ms | ratio (range) | difference |"
    )
    print("|" + "---|" * 12)
    results: list[dict[str, Any]] = []
    for name in ("dm", "datadam"):
        for width, batch_real in args.case or CASES:
            for ipc in args.ipc:
                results.append(compare(pipes, name, width, ipc, batch_real, args.steps))
                print(table_row(results[-1]), flush=True)
    for pipe in pipes.values():
        pipe.send(None)
    report.write(args.out, {"results": results}, threads=args.threads)


if __name__ == "__main__":
    main()
