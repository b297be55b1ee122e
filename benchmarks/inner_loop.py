"""Time and memory of one outer iteration of trajectory matching, for three gradients.

    python benchmarks/inner_loop.py            # width 128, 10 images of 3x32x32, N = 5, 10, 20, 40

- **Seconds**: the gradients are computed in turn for the same student, images and augmentation, in one process with the
  memory-retaining allocator. "compiled" is the `adjoint` of a run of usual length, without its warm-up.
- **Difference** of the gradient from `unroll`'s. "rounding" is the change of `unroll` when the start weights change by
  6e-8 of their values, the rounding of float32. It is a thousand times larger if a ReLU changes its sign, which also
  explains differences of a compiled gradient.
- **Activations**: the most bytes stored for automatic differentiation, counted with its hooks. **Peak**: growth of the
  resident memory of a fresh process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import report
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from dd_bench.distillation.unroll import (
    GRADIENTS,
    CompiledDifferentiator,
    Differentiator,
    EagerDifferentiator,
    EpochTarget,
    InnerLoop,
    InnerStep,
)
from dd_bench.models.architecture import Architecture
from dd_bench.models.convnet import ConvNet
from dd_bench.runtime.allocator import keep_freed_memory
from dd_bench.runtime.seeding import generator, stream
from dd_bench.training.augment import Augment
from dd_bench.training.losses import classification_loss
from dd_bench.training.parameter_vector import FunctionalNetwork, flatten

KNOBS = {"depth": 3, "norm": "instancenorm", "activation": "relu", "pooling": "avg"}
AUGMENT = Augment("color_crop_cutout_flip_scale_rotate", align_corners=True)
SIDES = ("unroll", "adjoint", "truncated", "compiled")
CPU = torch.device("cpu")
ROUNDINGS = 8


@cache
def student(width: int, compiled: bool) -> tuple[FunctionalNetwork, Differentiator]:
    """Return the student and its differentiator, the same for all N, as a run compiles once."""
    flat = FunctionalNetwork(
        Architecture(ConvNet, {**KNOBS, "width": width}, (3, 32, 32), 10, "convnet").fresh(0, CPU)
    )

    def loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return classification_loss(flat(theta, x), y)

    return flat, CompiledDifferentiator(loss, False) if compiled else EagerDifferentiator(loss, False)


def problem(
    width: int, images: int, steps: int, compiled: bool = False
) -> tuple[InnerLoop, Tensor, Tensor, Tensor]:
    """Return a student with random weights and a target nearby; the same in every call."""
    flat, differentiator = student(width, compiled)
    start = flatten(flat.net)
    draw = generator(CPU, 0, "problem")
    target = start + 0.05 * start.norm() / len(start) ** 0.5 * torch.randn(len(start), generator=draw)
    x = torch.randn(images, 3, 32, 32, generator=draw)
    y = torch.randint(10, (images,), generator=draw)
    everything, plan = torch.arange(images), []
    for i in range(steps):
        record = AUGMENT.draw(1, stream(CPU, 0, "augment", i), per_image=images)
        plan.append(InnerStep(everything, lambda b, record=record: AUGMENT.apply(b[None], record)[0]))
    return InnerLoop(differentiator, start, plan, [EpochTarget(steps, target)]), x, y, torch.tensor(0.01)


def run(side: str, parts: tuple[InnerLoop, Tensor, Tensor, Tensor]) -> Any:
    return GRADIENTS["adjoint" if side == "compiled" else side](*parts)


def activations(work: Callable[[], Any]) -> int:
    """Return the most bytes saved for a backward pass at any time; shared storages count once."""
    alive: dict[int, list[int]] = {}  # storage -> [references, bytes]
    most = held = 0

    class Saved:
        def __init__(self, tensor: Tensor):
            nonlocal most, held
            self.tensor, self.key = tensor, tensor.untyped_storage().data_ptr()
            entry = alive.setdefault(self.key, [0, tensor.untyped_storage().nbytes()])
            entry[0] += 1
            if entry[0] == 1:
                held += entry[1]
                most = max(most, held)

        def __del__(self) -> None:
            nonlocal held
            entry = alive[self.key]
            entry[0] -= 1
            if entry[0] == 0:
                held -= entry[1]
                del alive[self.key]

    with saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        work()
    return most


def memory_in_child(pipe: Connection, side: str, width: int, images: int, steps: int) -> None:
    run(side, problem(width, images, 1))
    before = high_water()
    run(side, problem(width, images, steps))
    pipe.send(high_water() - before)


def high_water() -> int:
    """Return the peak memory in bytes; not from `getrusage`, whose maximum a child inherits from its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def peak_memory(side: str, width: int, images: int, steps: int) -> int:
    receiver, sender = get_context("spawn").Pipe()
    child = get_context("spawn").Process(target=memory_in_child, args=(sender, side, width, images, steps))
    child.start()
    grown: int = receiver.recv()
    child.join()
    return grown


def measure(width: int, images: int, steps: int, rounds: int) -> dict[str, Any]:
    parts = {side: problem(width, images, steps, side == "compiled") for side in SIDES}
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    found = {}
    for turn in range(rounds + 1):
        for side in SIDES if turn % 2 else SIDES[::-1]:
            began = time.perf_counter()
            found[side] = run(side, parts[side])
            if turn:  # the first is a warm-up of caches and compiler
                seconds[side].append(time.perf_counter() - began)
    exact = found["unroll"].images
    inner, *rest = parts["unroll"]
    rounding = []
    for i in range(ROUNDINGS):
        noise = torch.randn(inner.start.shape, generator=generator(CPU, i, "rounding"))
        rounded = replace(inner, start=inner.start * (1 + 6e-8 * noise))
        rounding.append(float((run("unroll", (rounded, *rest)).images - exact).norm() / exact.norm()))  # type: ignore[arg-type]
    row: dict[str, Any] = {
        "width": width,
        "images": images,
        "steps": steps,
        "rounds": rounds,
        "rounding": sorted(rounding),
    }
    for side in SIDES:
        ratios = sorted(s / u for s, u in zip(seconds[side], seconds["unroll"], strict=True))
        row[side] = {
            "seconds": statistics.median(seconds[side]),
            "of_unroll": statistics.median(ratios),
            "of_unroll_range": [ratios[0], ratios[-1]],
            "gradient_difference": float((found[side].images - exact).norm() / exact.norm()),
        }
        if side != "compiled":
            row[side]["activations"] = activations(lambda side=side: run(side, parts[side]))  # type: ignore[misc]
            row[side]["peak"] = peak_memory(side, width, images, steps)
    return row


def rounding(row: dict[str, Any]) -> str:
    return f"{row['rounding'][0]:.0e} to {row['rounding'][-1]:.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--steps", type=int, nargs="*", default=[5, 10, 20, 40])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "inner_loop.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    print(
        "| N | "
        + " | ".join(f"{s} s (of unroll)" for s in SIDES)
        + " | activations MiB | peak MiB | difference, compiled | rounding |"
    )
    results = []
    for steps in args.steps:
        row = measure(args.width, args.images, steps, args.rounds)
        results.append(row)
        cells = [f"{row[s]['seconds']:.2f} ({row[s]['of_unroll']:.2f})" for s in SIDES]
        cells += [
            " / ".join(f"{row[s][what] / 2**20:.0f}" for s in SIDES[:3]) for what in ("activations", "peak")
        ]
        print(
            f"| {steps} | {' | '.join(cells)} | {row['adjoint']['gradient_difference']:.0e}, "
            f"{row['compiled']['gradient_difference']:.0e} | {rounding(row)} |",
            flush=True,
        )
    report.write(args.out, {"results": results}, threads=args.threads)


if __name__ == "__main__":
    main()
