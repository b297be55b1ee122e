"""D2 pruning: difficulty and diversity by message passing on a graph of images (Maharana et al., ICLR 2024)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from dd_bench.api import PICKS, Dynamics, Pick, RealSet, class_embeddings

from ._arguments import check_choice
from ._dynamics import DynamicsCoreset, checked_share, margins, without_hardest


class D2(DynamicsCoreset):
    """Select images of large difficulty one by one, and lower the scores of their neighbours.

    Drop the share `beta` of hardest images, as CCS does. Connect each image with its `neighbours` nearest images, at
    distance d. Forward pass: an image gets u = s + sum of exp(-d) s' over its neighbours. Then repeat: select the image
    with the largest u, and subtract exp(-gamma d) u from the u of each of its neighbours.

    The score s is >= 0 and comes from AUM: for `pick=hard` the distance from the easiest image, for `easy` that from
    the hardest, and for `medium` it is larger the closer the difficulty is to the median.

    Deviations: images are selected class by class. Embeddings are those of the trained network, scaled to norm 1, so
    that d is in [0, 2]. The paper combines the selection with strata at some pruning rates; this does not.
    """

    citation = (
        "Maharana et al., D2 Pruning: Message Passing for Balancing Diversity and Difficulty in Data Pruning, "
        "ICLR 2024"
    )
    deterministic = True

    def __init__(
        self,
        *,
        teacher: dict[str, Any],
        outputs: Literal["training", "clean"],
        pick: Pick,
        beta: float,
        neighbours: int,
        gamma: float,
    ):
        """Take what the base class takes, `pick`, the share `beta` to drop, the neighbours of an image, and gamma.

        Raises:
            ValueError: a value is out of range.
        """
        super().__init__(teacher=teacher, outputs=outputs)
        check_choice("pick", pick, PICKS)
        if neighbours < 1:
            raise ValueError(
                f"method.neighbours must be >= 1, got {neighbours}. Example: method.neighbours=5"
            )
        if not gamma >= 0:
            raise ValueError(f"method.gamma must be >= 0, got {gamma}. Example: method.gamma=0.1")
        self.pick, self.beta, self.neighbours, self.gamma = pick, checked_share(beta), neighbours, gamma

    def select(
        self, dynamics: Dynamics, real: RealSet, c: int, ipc: int, generator: torch.Generator
    ) -> Tensor:
        """See `DynamicsCoreset`."""
        difficulty = -margins(dynamics.probabilities(real.train.of_class(c)), c).mean(0)
        kept = without_hardest(difficulty, self.beta, ipc)
        features = class_embeddings(dynamics.net, real, c)[kept]
        return kept[self.pass_messages(preference(difficulty[kept], self.pick), features, ipc)]

    def pass_messages(self, score: Tensor, features: Tensor, count: int) -> Tensor:
        """Return the positions of `count` images with scores `(n,)` and features `(n, d)`."""
        distance, neighbours = nearest(features, self.neighbours)
        u = score + ((-distance).exp() * score[neighbours]).sum(1)
        weight = (-self.gamma * distance).exp()
        chosen = []
        for _ in range(count):
            pick = u.argmax()
            chosen.append(pick)
            u[neighbours[pick]] -= weight[pick] * u[pick]
            u[pick] = -torch.inf  # never select an image twice
        return torch.stack(chosen)


def preference(difficulty: Tensor, pick: Pick) -> Tensor:
    """Return a score >= 0 of each image that is larger the more `pick` prefers it."""
    if pick == "hard":
        return difficulty - difficulty.min()
    if pick == "easy":
        return difficulty.max() - difficulty
    from_median = (difficulty - difficulty.median()).abs()
    return from_median.max() - from_median


def nearest(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the distances `(n, m)` and positions `(n, m)` of the m nearest other images, in features of norm 1.

    m is `count`, or n - 1 if there are fewer images.
    """
    x = torch.nn.functional.normalize(features.double())
    m = min(count, len(x) - 1)
    distances, positions = [], []
    for rows in torch.arange(len(x), device=x.device).split(512):
        d = torch.cdist(x[rows], x)
        d[torch.arange(len(rows), device=x.device), rows] = torch.inf  # not itself
        near = d.topk(m, largest=False)
        distances.append(near.values)
        positions.append(near.indices)
    return torch.cat(distances), torch.cat(positions)
