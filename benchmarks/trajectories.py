"""Claims of the trajectory papers about their experts and sets, measured: sharpness, drift, change rate.

    python benchmarks/trajectories.py mtt=EXPERTS:SET ftd=EXPERTS:SET ast=EXPERTS:SET --momentum ast=0.9 --steps 20

EXPERTS is a folder of the cache (`dd-bench prepare` prints it), SET a synthetic set distilled with these experts or
with others of the same recipe. All experts have the same architecture, are trained on Fashion-MNIST, and are measured
on the same 1000 training images without augmentation. "way" covers all epochs of a buffer, so it is shorter for a
buffer with fewer epochs.

- **Sharpness** (FTD, equation 13): the increase of the loss after one ascent step of relative radius rho (adaptive, as
  in FTD's training), and the largest eigenvalue of the Hessian by power iteration (200 images).
- **Accumulated trajectory error** (FTD, section 3): a student starts at an expert's initialisation and trains only on
  the set, N full-batch steps per segment, as the evaluation does for up to 256 images. "accumulated" is
  |student - expert|^2 after each segment. A segment adds two errors: the "matching" error of a second student that
  starts the segment at the expert's weights, and the "initialisation" error, the difference between the updates of the
  two students. The vectors of the previous accumulated error and of these two errors add up to the next accumulated
  error. All errors, and "sum_of_matching", the sum of matching errors up to each segment, are divided by the squared
  distance between the expert's first and last weights ("way" is this distance).
- **Relative distance** to the expert after each segment, for the same two students: "drift" is |student - expert|^2
  over |initialisation - expert|^2. "left" is the same for the second student over |segment's start - expert|^2, which
  is the loss of distillation.
- **Change rate** (AST): |theta_{e+1} - theta_e| / |theta_e| per epoch, and its variation along a trajectory.
- **Perturbed start**: the increase of the matching error when the start is perturbed randomly by 1 % of its norm.

The students of a set that was distilled with AST's balanced loss are trained with it, unless `--unbalanced` is given.
The committed results were measured without it.

Expert i starts from the same weights in every buffer. Two buffers are compared by the mean difference between experts
of the same number ("less_first": the difference to the first buffer on the command line). Several names can have the
same experts, e.g. for sets with and without averaged images (part `drift` of leaderboards/campaign.sh). `--less A:B`
adds the paired differences of A and B. Both need equally many experts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import report
import torch
from torch import Tensor

from dd_bench.data.fashion_mnist import fashion_mnist
from dd_bench.methods._trajectory.segments import balance
from dd_bench.models.convnet import ConvNet
from dd_bench.runtime.allocator import keep_freed_memory
from dd_bench.runtime.seeding import generator, stream
from dd_bench.synthetic import storage
from dd_bench.synthetic.base import SyntheticSet
from dd_bench.synthetic.card import Card
from dd_bench.synthetic.images import ImageSet
from dd_bench.teachers.expert_buffer import ExpertBuffer
from dd_bench.training.augment import Augment
from dd_bench.training.losses import classification_loss
from dd_bench.training.parameter_vector import FunctionalNetwork

CPU = torch.device("cpu")
AUGMENT = Augment("color_crop_cutout_flip_scale_rotate", align_corners=True)


def summary(values: list[float]) -> dict[str, float]:
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "n": len(values),
        "values": values,  # one per expert, for paired differences
    }


def paired_differences(ours: Any, theirs: Any) -> Any:
    """Return the paired differences of all values that both sides contain."""
    if "values" in ours:
        return summary([a - b for a, b in zip(ours["values"], theirs["values"], strict=True)])
    return {
        key: paired_differences(ours[key], theirs[key])
        for key in ours
        if key in theirs and isinstance(ours[key], dict)
    }


def flat_network(buffer: ExpertBuffer) -> FunctionalNetwork:
    knobs = dict(buffer.header.architecture)
    shape, k = tuple(knobs.pop("shape")), knobs.pop("num_classes")
    knobs.pop("network")
    return FunctionalNetwork(ConvNet(shape, k, **knobs))  # type: ignore[arg-type]


def training_tensors(syn: SyntheticSet) -> tuple[Tensor, Tensor, float]:
    """Return images, labels and learned rate of a set from trajectory matching."""
    assert isinstance(syn, ImageSet) and syn.lr is not None
    return *syn.materialise(CPU), syn.lr


def is_balanced(card: Card) -> bool:
    """Return whether a set was distilled with AST's balanced loss (`method.balance`)."""
    return bool(card.config["method"].get("balance"))


def loss_weights(card: Card, balanced: bool) -> Callable[[int], float]:
    """Return the factor of the student's loss by the epoch at which it starts.

    It is 1, except for a set that was distilled with the balanced loss if `balanced` is true. Epochs after the window
    of distillation have the factor of its last epoch.
    """
    if not balanced or not is_balanced(card):
        return lambda epoch: 1.0
    stop = card.config["method"]["window"]["stop"]
    return lambda epoch: balance(min(epoch, stop - 1), stop)


def sharpness(flat: FunctionalNetwork, theta: Tensor, x: Tensor, y: Tensor, rho: float) -> float:
    """Return the increase of the loss after an adaptive ascent step of radius `rho`."""
    at = theta.clone().requires_grad_()
    loss = classification_loss(flat(at, x), y)
    (g,) = torch.autograd.grad(loss, at)
    step = rho * theta.square() * g / (theta.abs() * g).norm()
    with torch.no_grad():
        return float(classification_loss(flat(theta + step, x), y) - loss)


def top_eigenvalue(flat: FunctionalNetwork, theta: Tensor, x: Tensor, y: Tensor, rounds: int = 20) -> float:
    at = theta.clone().requires_grad_()
    (g,) = torch.autograd.grad(classification_loss(flat(at, x), y), at, create_graph=True)
    v = torch.randn(len(theta), generator=generator(CPU, 0, "power"))
    value = 0.0
    for _ in range(rounds):
        v = v / v.norm()
        (hv,) = torch.autograd.grad(g, at, v, retain_graph=True)
        value, v = float(v.dot(hv)), hv
    return value


def student(
    flat: FunctionalNetwork,
    theta: Tensor,
    images: Tensor,
    labels: Tensor,
    lr: float,
    steps: int,
    momentum: float,
    seed: int,
    weight: float = 1.0,
) -> Tensor:
    """Train on the set for `steps` full-batch steps with the papers' augmentation, and return the weights.

    `weight` is the factor of the loss, see `loss_weights`.
    """
    return weights_after(flat, theta, images, labels, lr, [steps], momentum, seed, weight)[0]


def weights_after(
    flat: FunctionalNetwork,
    theta: Tensor,
    images: Tensor,
    labels: Tensor,
    lr: float,
    after: list[int],
    momentum: float,
    seed: int,
    weight: float = 1.0,
) -> list[Tensor]:
    """Like `student`, but return the weights after each number of steps in `after` (ascending)."""
    velocity, found = torch.zeros_like(theta), []
    for i in range(after[-1]):
        draws = stream(CPU, seed, "augment", i)
        x = AUGMENT.batch(images, draws)
        at = theta.clone().requires_grad_()
        (g,) = torch.autograd.grad(weight * classification_loss(flat(at, x), labels), at)
        velocity = momentum * velocity + g
        theta = theta - lr * velocity
        if i + 1 in after:
            found.append(theta)
    return found


def error(student: Tensor, start: Tensor, target: Tensor) -> float:
    return float((student - target).square().sum() / (start - target).square().sum())


def measure_experts(buffer: ExpertBuffer, count: int, x: Tensor, y: Tensor, common: int) -> dict[str, Any]:
    flat, epochs = flat_network(buffer), buffer.header.epochs
    found: dict[str, Any] = {"sharpness": {}, "eigenvalue": {}, "loss": {}, "change_rate": {}}
    thetas = [[buffer.snapshot(i, e, CPU) for e in epochs] for i in range(count)]
    for e in epochs[1:]:
        at = epochs.index(e)
        for rho in (0.01, 0.1, 0.5):
            found["sharpness"].setdefault(str(rho), {})[e] = summary(
                [sharpness(flat, path[at], x, y, rho) for path in thetas]
            )
        if e in (epochs[-1], 2, 4):
            found["eigenvalue"][e] = summary(
                [top_eigenvalue(flat, path[at], x[:200], y[:200]) for path in thetas]
            )
        with torch.no_grad():
            found["loss"][e] = summary([float(classification_loss(flat(path[at], x), y)) for path in thetas])
        rates = [float((path[at] - path[at - 1]).norm() / path[at - 1].norm()) for path in thetas]
        found["change_rate"][e] = summary(rates)
    variation = []
    for path in thetas:
        # over epochs common to all buffers: weights change less in later epochs, so longer paths vary more
        rates = [float((b - a).norm() / a.norm()) for a, b in itertools.pairwise(path[: common + 1])]
        variation.append(statistics.pstdev(rates) / statistics.fmean(rates))
    found["variation_of_change_rate"] = summary(variation)
    return found


def measure_set(
    buffer: ExpertBuffer,
    count: int,
    folder: Path,
    steps: int,
    stretch: int,
    momentum: float,
    balanced: bool,
) -> dict[str, Any]:
    flat, (syn, card) = flat_network(buffer), storage.load(folder)
    images, labels, rate = training_tensors(syn)
    found: dict[str, Any] = {
        "set": folder.name,
        "ipc": card.ipc,
        "lr": rate,
        "balanced": balanced and is_balanced(card),
    }
    weight_at = loss_weights(card, balanced)
    segments = buffer.header.epochs[-1] // stretch
    measured: dict[str, dict[int, list[float]]] = {}

    def add(name: str, s: int, value: float) -> None:
        measured.setdefault(name, {}).setdefault(s + 1, []).append(value)

    ways = []
    for i in range(count):
        walker = buffer.snapshot(i, 0, CPU)
        first, last = walker, buffer.snapshot(i, segments * stretch, CPU)
        way, summed = float((last - first).square().sum()), 0.0
        ways.append(way**0.5)
        for s in range(segments):
            start, target = (buffer.snapshot(i, e, CPU) for e in (s * stretch, (s + 1) * stretch))
            before, weight = walker, weight_at(s * stretch)
            walker = student(flat, before, images, labels, rate, steps, momentum, 100 * i + s, weight)
            own = student(flat, start, images, labels, rate, steps, momentum, 100 * i + s, weight)
            deviation = (walker - before) - (own - start)
            summed += float((own - target).square().sum())
            add("accumulated", s, float((walker - target).square().sum()) / way)
            add("matching", s, float((own - target).square().sum()) / way)
            add("initialisation", s, float(deviation.square().sum()) / way)
            add("sum_of_matching", s, summed / way)
            add("drift", s, error(walker, first, target))
            add("left", s, error(own, start, target))
            noise = torch.randn(len(start), generator=generator(CPU, i, "noise", s))
            perturbed = start + 0.01 * start.norm() * noise / noise.norm()
            end = student(flat, perturbed, images, labels, rate, steps, momentum, 100 * i + s, weight)
            add("perturbed", s, error(end, start, target) - error(own, start, target))
    found["way"] = summary(ways)
    return found | {name: {s: summary(v) for s, v in of.items()} for name, of in measured.items()}


def less_first(ours: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """Return paired differences of experts, and of sets with the same IPC; both sides need equally many experts."""
    sets = {s["ipc"]: s for s in first["sets"]}
    return {
        "experts": paired_differences(ours["experts"], first["experts"]),
        "sets": {s["ipc"]: paired_differences(s, sets[s["ipc"]]) for s in ours["sets"] if s["ipc"] in sets},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", nargs="+", help="NAME=EXPERTS:SET[:SET...]")
    parser.add_argument(
        "--momentum", nargs="*", default=[], help="NAME=VALUE: momentum of the student's SGD; default 0"
    )
    parser.add_argument("--steps", type=int, required=True, help="N, student steps per segment")
    parser.add_argument("--epochs", type=int, default=2, help="M, expert epochs per segment")
    parser.add_argument("--experts", type=int, help="number of experts to measure; default: all")
    parser.add_argument(
        "--unbalanced", action="store_true", help="students without the balanced loss of sets that have it"
    )
    parser.add_argument(
        "--less", nargs="*", default=[], metavar="A:B", help="pairs of names; adds the differences A - B"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "trajectories.json")
    args = parser.parse_args()
    keep_freed_memory()
    momenta = {name: float(value) for name, value in (pair.split("=") for pair in args.momentum)}
    real = fashion_mnist(root=None, download=False, preprocess="normalise", val_fraction=0.0, device=CPU)
    index = real.train.draw(100, generator(CPU, 0, "measured on")).flatten()
    x, y = real.train.inputs(index), real.train.labels[index]
    results: dict[str, Any] = {}
    measured: dict[Path, dict[str, Any]] = {}  # several names can have the same experts
    comparisons = [(a, b) for a, _, b in (pair.partition(":") for pair in args.less)]
    names = [pair.partition("=")[0] for pair in args.pairs]
    if unknown := [name for pair in comparisons for name in pair if name not in names]:
        parser.error(f"--less must be pairs of {', '.join(map(repr, names))}, got {unknown[0]!r}")
    first = None
    folders = [pair.partition("=")[2].split(":")[0] for pair in args.pairs]
    common = min(ExpertBuffer(Path(folder)).header.epochs[-1] for folder in folders)
    for pair in args.pairs:
        name, _, paths = pair.partition("=")
        experts, *sets = paths.split(":")
        buffer = ExpertBuffer(Path(experts))
        count = min(len(buffer), args.experts or len(buffer))
        if buffer.path not in measured:
            measured[buffer.path] = measure_experts(buffer, count, x, y, common)
        results[name] = {
            "experts": measured[buffer.path],
            "recipe": buffer.header.recipe,
        }
        results[name]["sets"] = [
            measure_set(
                buffer, count, Path(s), args.steps, args.epochs, momenta.get(name, 0.0), not args.unbalanced
            )
            for s in sets
        ]
        if first is None:
            first = results[name]
        else:
            results[name]["less_first"] = less_first(results[name], first)
        print(name, json.dumps(results[name], indent=1), flush=True)
        differences = {
            f"{a} less {b}": less_first(results[a], results[b])
            for a, b in comparisons
            if a in results and b in results
        }
        found = {"results": results} | ({"differences": differences} if comparisons else {})
        report.write(args.out, {"steps": args.steps, "common_epochs": common, **found})


if __name__ == "__main__":
    main()
