"""One step of recovery, against a straightforward implementation: image-iterations per second, ratio, loss.

    python benchmarks/recover_step.py            # ResNet-18 and ConvNet-3 with BatchNorm, 3x32x32, 10 and 100 images

"plain" is the usual implementation of these methods: a hook per BatchNorm layer that computes the variance of a
permuted copy, and a teacher whose parameters remain trainable, so that every backward pass computes their gradients.
It runs in its own process with the default allocator. Our side is `recover_loss` on a frozen `HookedTeacher`, in
processes with the memory-retaining allocator: "eager"; "compiled", as in a run long enough for compilation; and
"bf16", compiled under autocast with statistics in float32, as on a machine with native bfloat16. Every side crops,
flips and rolls the batch in the same way and takes a step of Adam. They take turns. Losses are compared at the same
images.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import report
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dd_bench.distillation.batchnorm_statistics import HookedTeacher
from dd_bench.methods._recovery.objective import recover_loss
from dd_bench.methods._recovery.views import RecoverViews
from dd_bench.models.architecture import Architecture
from dd_bench.models.convnet import ConvNet
from dd_bench.models.network import Network, executed_norms
from dd_bench.models.resnet import ResNet18
from dd_bench.runtime.allocator import keep_freed_memory
from dd_bench.runtime.seeding import generator
from dd_bench.teachers.teachers import Teacher

SHAPE = (3, 32, 32)
NETWORKS: dict[str, tuple[type[Network], dict[str, Any]]] = {
    "resnet18": (ResNet18, {"norm": "batchnorm", "downsample": "stride"}),
    "convnet3": (
        ConvNet,
        {"depth": 3, "width": 128, "norm": "batchnorm", "activation": "relu", "pooling": "avg"},
    ),
}
SIDES = ("plain", "eager", "compiled", "bf16")
VIEWS = RecoverViews(smallest=0.08, curriculum="const", milestone=1.0, flip=True, roll=(0, 4))
WEIGHT = 0.01


def trained(name: str) -> Network:
    """Return a network whose running statistics are not the initial ones."""
    make, knobs = NETWORKS[name]
    net = Architecture(make, knobs, SHAPE, 10, name).fresh(0, torch.device("cpu"))
    with torch.no_grad():
        for i in range(10):
            net(torch.randn(32, *SHAPE, generator=generator("cpu", i, "warm")))
    return net.eval()


class Hook:
    """The usual hook, which stores the distance of a layer's input from its running statistics."""

    def __init__(self, norm: nn.BatchNorm2d):
        self.distance = torch.zeros(())
        norm.register_forward_hook(self)

    def __call__(self, norm: nn.BatchNorm2d, inputs: tuple[Tensor], output: Tensor) -> None:
        """Store the distance for the inputs of the layer."""
        z = inputs[0]
        mean = z.mean([0, 2, 3])
        var = z.permute(1, 0, 2, 3).contiguous().view(z.shape[1], -1).var(1, unbiased=False)
        assert norm.running_var is not None and norm.running_mean is not None
        self.distance = (norm.running_var - var).norm(2) + (norm.running_mean - mean).norm(2)


def plain_loss(net: Network) -> Any:
    hooks = [Hook(m) for m in net.modules() if isinstance(m, nn.BatchNorm2d)]

    def loss(x: Tensor, y: Tensor) -> Tensor:
        logits = net(x)
        distance = sum((10.0 if i == 0 else 1.0) * hook.distance for i, hook in enumerate(hooks))
        return F.cross_entropy(logits, y) + WEIGHT * distance

    return loss


def our_loss(net: Network, compiled: bool, autocast: bool) -> Any:
    norms = executed_norms(net, SHAPE)
    teacher = Teacher("t", net.requires_grad_(False), tuple("abcdefghij"), norms, "", None, None, False)
    multipliers = torch.ones(len(norms))
    multipliers[0] = 10.0
    hooked, loss = HookedTeacher(teacher), partial(recover_loss, weight=WEIGHT, autocast=autocast)
    loss = torch.compile(loss, dynamic=False) if compiled else loss
    return lambda x, y: loss(hooked, x, y, multipliers)[0]


def worker(side: str, pipe: Connection, threads: int) -> None:
    torch.set_num_threads(threads)
    if side != "plain":
        keep_freed_memory()
    problems: dict[tuple[str, int], Any] = {}
    while (job := pipe.recv()) is not None:
        name, batch, step = job
        if (name, batch) not in problems:
            net = trained(name)
            loss = plain_loss(net) if side == "plain" else our_loss(net, side != "eager", side == "bf16")
            x = torch.randn(batch, *SHAPE, generator=generator("cpu", 0, "x")).requires_grad_()
            problems = {(name, batch): (loss, x, torch.optim.Adam([x], 0.25, (0.5, 0.9)))}
        loss, x, optimizer = problems[name, batch]
        with torch.no_grad():  # the same images on all sides
            x.copy_(torch.randn(batch, *SHAPE, generator=generator("cpu", step, "x")))
        began = time.perf_counter()
        view = VIEWS.draw(step, 1000, SHAPE, True, generator("cpu", step, "view"))
        value = loss(view(x), torch.arange(batch) % 10)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        with torch.no_grad():
            x.clamp_(-2, 2)
        pipe.send((time.perf_counter() - began, value.item()))


def compare(pipes: dict[str, Connection], name: str, batch: int, steps: int) -> dict[str, Any]:
    """Take `steps` steps on each side in turn; report the largest relative difference of the losses."""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    worst = dict.fromkeys(SIDES, 0.0)
    for step in range(steps + 2):
        losses = {}
        for side in SIDES if step % 2 == 0 else SIDES[::-1]:
            pipes[side].send((name, batch, step))
            took, losses[side] = pipes[side].recv()
            if step >= 2:  # the first two are a warm-up of caches and compiler
                seconds[side].append(took)
        for side in SIDES:
            worst[side] = max(worst[side], abs(losses[side] / losses["plain"] - 1))
    row: dict[str, Any] = {"network": name, "batch": batch, "steps": steps}
    for side in SIDES:
        row[side] = {
            "images_per_second": batch / statistics.median(seconds[side]),
            **report.ratio_of(seconds["plain"], seconds[side]),
            "loss_difference": worst[side],
        }
    return row


def table_row(row: dict[str, Any]) -> str:
    cells = [row["network"], str(row["batch"]), f"{row['plain']['images_per_second']:.0f}"]
    for side in SIDES[1:]:
        low, high = row[side]["ratio_range"]
        cells.append(
            f"**{row[side]['ratio']:.2f}** ({low:.2f}-{high:.2f}), {row[side]['loss_difference']:.0e}"
        )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--network", nargs="+", default=list(NETWORKS))
    parser.add_argument("--batch", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "recover_step.json")
    args = parser.parse_args()
    context, pipes = get_context("spawn"), {}
    for side in SIDES:
        pipes[side], worker_pipe = context.Pipe()
        context.Process(target=worker, args=(side, worker_pipe, args.threads), daemon=True).start()
    print("| teacher | images | plain images/s | eager: ratio (range), difference | compiled | bf16 |")
    print("|---|---|---|---|---|---|")
    results = []
    for name in args.network:
        for batch in args.batch:
            results.append(compare(pipes, name, batch, args.steps))
            print(table_row(results[-1]), flush=True)
    for pipe in pipes.values():
        pipe.send(None)
    report.write(args.out, {"results": results}, threads=args.threads)


if __name__ == "__main__":
    main()
