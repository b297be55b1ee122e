"""CDA's curriculum: a plot of the schedules, and images recovered with it and with constant crops.

    pip install matplotlib
    python benchmarks/curriculum.py constant=SET curriculum=SET        # folders of `dd-bench distill`

Writes `results/curriculum.png`. At the top is the smallest area of a crop over the iterations for each curriculum,
below it one row per set with the first image of each class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from dd_bench.methods._recovery.views import RecoverViews
from dd_bench.synthetic import storage

ITERATIONS = 500
CURVES = (("const", 1.0), ("step", 0.5), ("linear", 1.0), ("cosine", 1.0), ("cosine", 0.5))


def areas(curriculum: str, milestone: float) -> list[float]:
    views = RecoverViews(smallest=0.08, curriculum=curriculum, milestone=milestone, flip=True, roll=(0, 0))  # type: ignore[arg-type]
    return [views.area(t, ITERATIONS) for t in range(ITERATIONS)]


def first_of_each_class(folder: Path) -> np.ndarray:
    """Return the first image of each class in one row, `(h, k w)` or `(h, k w, 3)`."""
    syn, card = storage.load(folder)
    pixels, classes = syn.pictures()
    picked = [pixels[classes == c][0].permute(1, 2, 0).numpy() for c in range(len(card.class_names))]
    return np.concatenate(picked, 1).squeeze()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", help="NAME=FOLDER")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "curriculum.png")
    args = parser.parse_args()
    pairs = [pair.partition("=")[::2] for pair in args.sets]
    heights = [3.0] + [1.0] * len(pairs)
    figure, axes = plt.subplots(
        len(heights), 1, figsize=(8, sum(heights) + 1), height_ratios=heights, layout="constrained"
    )
    for curriculum, milestone in CURVES:
        axes[0].plot(areas(curriculum, milestone), label=f"{curriculum}, milestone {milestone:g}")
    axes[0].set(xlabel=f"iteration of {ITERATIONS}", ylabel="smallest area of a crop", ylim=(0, 1.05))
    axes[0].legend(loc="upper right", fontsize="small")
    for axis, (name, folder) in zip(axes[1:], pairs, strict=True):
        axis.imshow(first_of_each_class(Path(folder)), cmap="gray", vmin=0, vmax=1)
        axis.set_title(name, fontsize="small", loc="left")
        axis.set_axis_off()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=120)


if __name__ == "__main__":
    main()
