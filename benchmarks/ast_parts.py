"""Effect of AST's intermediate loss and perturbed start on the errors that they are designed to reduce.

    python benchmarks/ast_parts.py EXPERTS all=SET "no intermediate loss=SET" ... --momentum 0.9 --steps 50

EXPERTS is the folder of the experts with which every SET was distilled. A student starts at each epoch of the window
of each expert and trains only on the set, as in `trajectories.py`:

- **after an epoch**: |student - expert|^2 / |start - expert|^2 after each of the M epochs. Without intermediate
  matching, the loss of distillation contains only the last of them.
- **perturbed**: the same after M epochs from a start whose convolutions are perturbed as in the method (`perturbed` of
  `dd_bench.methods._trajectory.segments`, scale 1), and how much this is above the unperturbed start.

Sets that were distilled with the balanced loss train their students with it, unless `--unbalanced` is given. The
committed results were measured without it, so they are not exactly the errors that distillation minimised.

Errors are measured on the experts that were used in distillation. Differences to the first set are computed for equal
experts, starts, augmentation and noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import report
import torch
from trajectories import (
    CPU,
    error,
    flat_network,
    is_balanced,
    loss_weights,
    paired_differences,
    summary,
    training_tensors,
    weights_after,
)

from dd_bench.methods._trajectory.segments import perturbed
from dd_bench.runtime.allocator import keep_freed_memory
from dd_bench.runtime.seeding import generator
from dd_bench.synthetic import storage
from dd_bench.teachers.expert_buffer import ExpertBuffer


def measure_set(
    buffer: ExpertBuffer, folder: Path, steps: int, epochs: int, stop: int, momentum: float, balanced: bool
) -> dict[str, Any]:
    flat, (syn, card) = flat_network(buffer), storage.load(folder)
    images, labels, rate = training_tensors(syn)
    weight_at = loss_weights(card, balanced)
    after = [steps // epochs * j for j in range(1, epochs)] + [steps]
    values: dict[str, list[float]] = {}
    for i in range(len(buffer)):
        for first in range(stop):
            start = buffer.snapshot(i, first, CPU)
            targets = [buffer.snapshot(i, first + j, CPU) for j in range(1, epochs + 1)]
            seed, weight = 100 * i + first, weight_at(first)
            ends = weights_after(flat, start, images, labels, rate, after, momentum, seed, weight)
            for j, (end, target) in enumerate(zip(ends, targets, strict=True), 1):
                values.setdefault(f"after epoch {j}", []).append(error(end, start, target))
            noisy = perturbed(start, flat, 1.0, generator(CPU, i, "noise", first))
            end = weights_after(flat, noisy, images, labels, rate, after, momentum, seed, weight)[-1]
            values.setdefault("perturbed", []).append(error(end, noisy, targets[-1]))
            values.setdefault("rise", []).append(
                values["perturbed"][-1] - values[f"after epoch {epochs}"][-1]
            )
    stated = {"set": folder.name, "lr": rate, "balanced": balanced and is_balanced(card)}
    return stated | {name: summary(v) for name, v in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experts", type=Path)
    parser.add_argument("sets", nargs="+", help="NAME=SET; the others are compared with the first")
    parser.add_argument("--momentum", type=float, required=True, help="momentum of the student's SGD")
    parser.add_argument("--steps", type=int, required=True, help="N, student steps per segment")
    parser.add_argument("--epochs", type=int, default=2, help="M, expert epochs per segment")
    parser.add_argument(
        "--stop", type=int, required=True, help="students start at all epochs before this one"
    )
    parser.add_argument(
        "--unbalanced", action="store_true", help="students without the balanced loss of sets that have it"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ast_parts.json")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    buffer, results = ExpertBuffer(args.experts), {}
    for pair in args.sets:
        name, _, folder = pair.rpartition("=")
        results[name] = measure_set(
            buffer, Path(folder), args.steps, args.epochs, args.stop, args.momentum, not args.unbalanced
        )
        first = results[next(iter(results))]
        if results[name] is not first:
            results[name]["less_first"] = paired_differences(
                {k: v for k, v in results[name].items() if isinstance(v, dict)}, first
            )
        cells = [
            f"{what} {v['mean']:.4f}"
            for what, v in results[name].items()
            if isinstance(v, dict) and "mean" in v
        ]
        print(name, " · ".join(cells), flush=True)
    report.write(
        args.out,
        {"steps": args.steps, "epochs": args.epochs, "window": args.stop, "results": results},
        threads=1,
    )


if __name__ == "__main__":
    main()
