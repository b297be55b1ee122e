"""CAD-Prune: spread of EL2N late in a training with the compute of the student (arXiv 2604.18811, CVPR 2026)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import Architecture, Pick, RealSet, Recipe

from ._dynamics import ScoreCoreset, errors


class CADPrune(ScoreCoreset):
    """Difficulty = CAD, the mean over the windows of the standard deviation of EL2N in a window.

    EL2N is recorded at K = `points` points, evenly spaced in the steps of the training. A window consists of J =
    `window` consecutive points, and `windows` lists the first points of the windows, counted from 0. The W windows of
    the paper start at K - J - W, ..., K - J - 1, so that the last point is in no window. The released code of Dyn-Unc
    (He et al., 2023), from which the windows come, leaves it out too. A number of `windows` is the number of windows of
    which the last one ends at the last point.

    `teacher` is the recipe of the student. With `teacher.steps=null`, it is compressed: the training processes as many
    images of the training set as the student later processes images of the set, i.e. epochs x IPC x classes, and
    milestones are moved in proportion. A number of `teacher.steps` is used as it is.

    Deviations: there is no released code; this follows secondary notes on the paper. The paper records EL2N after
    epochs. With few images per class, the student's compute is less than ten epochs, so this records it after steps.
    The compressed recipe is that of the protocol `dc-300`, whatever the run's protocol is.
    """

    citation = "CAD-Prune, arXiv 2604.18811, CVPR 2026"
    deterministic = True
    smoke: ClassVar[dict[str, Any]] = {
        "teacher.epochs": 15,
        "teacher.milestones": [10],
        "teacher.batch_size": 4,
    }

    def __init__(
        self, *, teacher: dict[str, Any], pick: Pick, points: int, window: int, windows: int | list[int]
    ):
        """Take the training recipe, `pick`, the number of points, the points per window, and the windows.

        Raises:
            ValueError: a window has fewer than two points, there is none, or one does not lie within the points.
        """
        super().__init__(teacher=teacher, outputs="clean", pick=pick)
        end = points - window + 1
        starts = list(windows) if isinstance(windows, list) else list(range(end - windows, end))
        if window < 2 or not starts or min(starts) < 0 or max(starts) >= end:
            raise ValueError(
                "method.windows must be first points from 0 to points - window, or a number of windows from 1 to "
                f"points - window + 1, with window >= 2, got points={points}, window={window} and windows={windows}. "
                "Example: method.points=10 method.window=6 method.windows=[2,3]"
            )
        self.points, self.window, self.starts = points, window, starts

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`. There must be as many training steps as points."""
        if reason := super().check_dataset(real, ipc, architecture):
            return reason
        steps, points = self.recipe_for(real, ipc).steps or 0, self.points or 1
        if points <= steps:
            return None
        return (
            f"method.points must be at most the number of training steps, {steps} at ipc={ipc}, got {points}. "
            f"Use method.teacher.batch_size={max(1, self.recipe.batch_size * steps // points)} or a larger ipc"
        )

    def recipe_for(self, real: RealSet, ipc: int) -> Recipe:
        """See `DynamicsCoreset`."""
        return self.recipe.compressed(ipc * real.num_classes)

    def difficulty(self, p: Tensor, norms: Tensor, c: int, generator: torch.Generator) -> Tensor:
        """See `ScoreCoreset`."""
        spread = errors(p, c).unfold(0, self.window, 1).std(2)  # (points - window + 1, n)
        return spread[self.starts].mean(0)
