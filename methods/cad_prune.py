"""CAD-Prune: spread of EL2N late in a training with the compute of the student (arXiv 2604.18811, CVPR 2026)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import Pick

from ._dynamics import ScoreCoreset, errors


class CADPrune(ScoreCoreset):
    """Difficulty = CAD, the mean over the last `windows` windows of the standard deviation of EL2N in a window.

    EL2N is recorded at `points` points, evenly spaced in the steps of the training. A window consists of `window`
    consecutive points, and the last one ends at the last point. The training processes as many images as a student
    does later: set `method.teacher.steps` to student epochs x images of the set / batch size.

    Deviations: there is no released code; this follows secondary notes on the paper. The paper records EL2N after
    epochs. With few images per class, the student's compute is less than ten epochs, so this records it after steps.
    """

    citation = "CAD-Prune, arXiv 2604.18811, CVPR 2026"
    deterministic = True
    smoke: ClassVar[dict[str, Any]] = {"teacher.steps": 10}

    def __init__(self, *, teacher: dict[str, Any], pick: Pick, points: int, window: int, windows: int):
        """Take the training recipe, `pick`, the number of points, the points per window, and the number of windows.

        Raises:
            ValueError: there are fewer points than the windows need.
        """
        super().__init__(teacher=teacher, outputs="clean", pick=pick)
        if window < 2 or windows < 1 or points < window + windows - 1:
            raise ValueError(
                "method.points must be >= window + windows - 1, with window >= 2 and windows >= 1, got "
                f"points={points}, window={window} and windows={windows}. Example: method.points=10 "
                "method.window=6 method.windows=2"
            )
        self.points, self.window, self.windows = points, window, windows

    def difficulty(self, p: Tensor, norms: Tensor, c: int, generator: torch.Generator) -> Tensor:
        """See `ScoreCoreset`."""
        spread = errors(p, c).unfold(0, self.window, 1).std(2)  # (points - window + 1, n)
        return spread[-self.windows :].mean(0)
