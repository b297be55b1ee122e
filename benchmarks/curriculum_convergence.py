"""CDA's claim of faster convergence: losses of the recovered images over the iterations, for each curriculum of crops.

    pip install 'dd-bench[plots]'
    python benchmarks/curriculum_convergence.py --cache runs/cache

The loss of a run is measured on the views of its own curriculum, so the losses of two curricula are not comparable.
Here, all of them are measured on the *uncropped* images, after fixed numbers of iterations.

- **teacher**: the cross-entropy of the teacher on the images, without crop, flip and roll.
- **statistics**: the distance of the images to the teacher's BatchNorm statistics, with the weights of the layers as in
  recovery, but without `method.statistics`.

A run recovers one image of each class with the method and the settings of experiment fashion_kd_cda, teacher
convnet_w32_bn. With the same seed, all runs start from the same noise. The curricula are

- **cosine**: CDA.
- **const**: crops of at least 8 % of the area from the start, as in SRe2L on Tiny-ImageNet and ImageNet, with which the
  paper compares CDA.
- **none**: no crops, as in SRe2L on CIFAR-100 and in experiment fashion_kd_sre2l.

Differences to `const` and to `none` are paired by seed, with 95 % intervals by Student's t.

Writes `results/cda_convergence.json` and `results/cda_convergence.svg`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import report
import torch
from torch import Tensor

from dd_bench.api import DistillContext
from dd_bench.methods._recovery.images import Images
from dd_bench.methods._recovery.layout import units_of
from dd_bench.methods._recovery.start import initial
from dd_bench.methods.sre2l import SRe2L
from dd_bench.pipeline.compose import RunConfig, compose
from dd_bench.pipeline.experiment import Experiment
from dd_bench.records.intervals import paired_difference, std
from dd_bench.runtime.loggers import MultiLogger
from dd_bench.runtime.outer_loop import OuterLoop
from dd_bench.runtime.progress import bars

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CURRICULA = {
    "none": "method.views.smallest=null",
    "const": "method.views.curriculum=const",
    "cosine": "method.views.curriculum=cosine",
}
LOSSES = ("teacher", "statistics")


def points_of(iterations: int) -> list[int]:
    """Return the numbers of iterations after which losses are measured: 0, and 20 equal steps to the last."""
    return sorted({round(iterations * i / 20) for i in range(21)})


class MeasuredImages(Images):
    """Images that are measured before the iterations of `points`, which does not change them."""

    def __init__(self, x: Tensor, y: Tensor, points: list[int], measure: Callable[[Tensor, Tensor], None]):
        super().__init__(x, y)
        self.points, self.measure = points, measure

    def begin(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Measure the images if the iteration is one of `points`."""
        if step in self.points:
            self.measure(self.x, self.y)


def losses_of_run(run: Experiment, seed: int, points: list[int]) -> dict[str, list[float]]:
    """Recover one image of each class, and return the losses of the uncropped images after each of `points`."""
    method, real = run.method, run.real.train_only()
    assert isinstance(method, SRe2L)
    measured: dict[str, list[float]] = {name: [] for name in LOSSES}

    @torch.no_grad()
    def measure(x: Tensor, y: Tensor) -> None:
        logits, distances = hooked(x)
        measured["teacher"].append(float(torch.nn.functional.cross_entropy(logits, y)))
        measured["statistics"].append(float((layers * distances).sum()))

    with tempfile.TemporaryDirectory() as folder:
        ctx = DistillContext(
            seed=seed,
            runtime=run.runtime,
            cache=run.cache(),
            architecture=run.architecture,
            loop=OuterLoop(Path(folder), MultiLogger([]), log_every=100, checkpoint_seconds=1e9),
            teachers=run.teachers,
        )
        guides = ctx.teachers_of(real)[:1]
        loss = method.in_turn(real, guides, real.num_classes, ctx)
        (hooked,), (layers,) = loss.teachers, loss.layers
        (unit,) = units_of("slot", real.num_classes, 1, None)
        start = initial(method.init, real, 1, guides[0], method.patches, None, ctx)
        images = MeasuredImages(start(unit).clone(), unit.labels(ctx.device), points, measure)
        measure(method.engine(real).optimise(images, loss, unit.name, ctx), images.y)
    return measured


def summary(values: list[list[float]]) -> dict[str, Any]:
    """Return mean and standard deviation at each point, of `values` by seed."""
    columns = list(zip(*values, strict=True))
    mean = [sum(column) / len(column) for column in columns]
    return {"mean": mean, "std": [std(column) for column in columns], "values": values}


def differences(a: list[list[float]], b: list[list[float]]) -> list[dict[str, float]]:
    """Return the paired difference a - b at each point, with its 95 % interval."""
    found = []
    for ours, theirs in zip(zip(*a, strict=True), zip(*b, strict=True), strict=True):
        d = paired_difference(ours, theirs)
        found.append({"mean": d.mean, "ci_low": d.low, "ci_high": d.high})
    return found


def draw(path: Path, points: list[int], results: dict[str, dict[str, Any]]) -> None:
    """Write a figure: a row per weight of the statistics, a column per loss, standard deviations as bands."""
    style = {"svg.hashsalt": "dd_bench", "svg.fonttype": "none", "font.size": 9}
    colours = dict(zip(CURRICULA, ("#999999", "#0072b2", "#d55e00"), strict=True))
    with matplotlib.rc_context(style):
        figure, axes = plt.subplots(
            len(results),
            2,
            figsize=(7.5, 2.8 * len(results)),
            squeeze=False,
            sharex=True,
            layout="constrained",
        )
        for row, (weight, by_curriculum) in zip(axes, results.items(), strict=True):
            for axis, loss in zip(row, LOSSES, strict=True):
                for name, colour in colours.items():
                    s = by_curriculum[name][loss]
                    mean, spread = torch.tensor(s["mean"]), torch.tensor(s["std"])
                    axis.plot(points, mean, color=colour, label=name)
                    low, high = (mean - spread).clamp_min(1e-4), mean + spread
                    axis.fill_between(points, low, high, color=colour, alpha=0.2, linewidth=0)
                axis.set_yscale("log")
                axis.set_title(f"{loss}, method.statistics={weight}", fontsize="medium")
        for axis in axes[-1]:
            axis.set_xlabel("iteration")
        axes[0, 0].legend(title="curriculum")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cache", default="runs/cache", help="folder with the teacher; it is trained if missing"
    )
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=5, help="number of runs per curriculum, at least 3")
    parser.add_argument("--statistics", type=float, nargs="+", default=[0.01, 1.0], help="method.statistics")
    parser.add_argument("--overrides", nargs="*", default=[], help="further overrides, e.g. dataset=digits")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "cda_convergence.json"
    )
    args = parser.parse_args(argv)
    if args.seeds < 3:
        parser.error(f"--seeds must be >= 3, got {args.seeds}")
    torch.set_num_threads(1)
    points = points_of(args.iterations)
    words = ["experiment=fashion_kd_cda", "ipc=1", "teacher=convnet_w32_bn", "runtime=one_thread"]
    words += [f"cache={args.cache}", f"method.iterations={args.iterations}", *args.overrides]
    results: dict[str, dict[str, Any]] = {}
    for weight in args.statistics:
        values: dict[str, dict[str, list[list[float]]]] = {
            name: {loss: [] for loss in LOSSES} for name in CURRICULA
        }
        for name, override in CURRICULA.items():
            run = compose(RunConfig.of([*words, override, f"method.statistics={weight}"]))
            for seed in range(args.seeds):
                with bars(False):
                    found = losses_of_run(run, seed, points)
                for loss in LOSSES:
                    values[name][loss].append(found[loss])
        results[f"{weight:g}"] = {
            name: {loss: summary(values[name][loss]) for loss in LOSSES}
            | {
                f"less {other}": {
                    loss: differences(values[name][loss], values[other][loss]) for loss in LOSSES
                }
                for other in ("const", "none")
            }
            for name in CURRICULA
        }
        for name in CURRICULA:
            last = {loss: results[f"{weight:g}"][name][loss]["mean"][-1] for loss in LOSSES}
            print(f"statistics={weight:g} {name}: {last}", flush=True)
    report.write(args.out, {"iterations": points, "seeds": args.seeds, "results": results}, threads=1)
    draw(args.out.with_suffix(".svg"), points, results)


if __name__ == "__main__":
    main()
