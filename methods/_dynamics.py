"""Base class of the coresets that rank the images of a class by their training dynamics."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from dd_bench.api import (
    OUTPUTS,
    PICKS,
    Architecture,
    DistillContext,
    Dynamics,
    Method,
    Pick,
    RealSet,
    Recipe,
    SyntheticSet,
    build_coreset,
    check_class_sizes,
    parse,
    select_ranked,
    training_dynamics,
)

from ._arguments import check_choice


class DynamicsCoreset(Method):
    """Select images class by class by how a network predicts them during its training on the whole training set.

    The network does not depend on the run's seed, and all coresets with the same recipe share its cached predictions.
    """

    smoke: ClassVar[dict[str, Any]] = {"teacher.epochs": 3, "teacher.milestones": []}
    points: int | None = None

    def __init__(self, *, teacher: dict[str, Any], outputs: Literal["training", "clean"]):
        """Take the training recipe of the network, and which `outputs` are recorded, see `training_dynamics`.

        Raises:
            ValueError: `outputs` is neither `training` nor `clean`.
        """
        self.recipe = parse(Recipe, teacher, "method.teacher")
        check_choice("outputs", outputs, OUTPUTS)
        self.outputs = outputs

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        return super().check_dataset(real, ipc, architecture) or check_class_sizes(real, ipc, ipc)

    def recipe_for(self, real: RealSet, ipc: int) -> Recipe:
        """Return the recipe of the network for a set of `ipc` images per class."""
        return self.recipe

    def dynamics(self, real: RealSet, recipe: Recipe, ctx: DistillContext) -> Dynamics:
        """Return the predictions of the network, training it if they are not cached."""
        return training_dynamics(
            real, ctx.architecture, recipe, ctx, outputs=self.outputs, points=self.points
        )

    def prepare(self, real: RealSet, ctx: DistillContext) -> None:
        """Train the network and record its predictions."""
        self.dynamics(real, self.recipe_for(real, ctx.ipc), ctx)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> SyntheticSet:
        """See `Method`."""
        dynamics, chosen = self.dynamics(real, self.recipe_for(real, ipc), ctx), []
        for c in range(real.num_classes):
            index = real.train.of_class(c)
            chosen.append(index[self.select(dynamics, real, c, ipc, ctx.generator("select", c))])
        return build_coreset(real, torch.cat(chosen))

    @abstractmethod
    def select(
        self, dynamics: Dynamics, real: RealSet, c: int, ipc: int, generator: torch.Generator
    ) -> Tensor:
        """Return the positions `(ipc,)` to select from the images `real.train.of_class(c)`."""


class ScoreCoreset(DynamicsCoreset):
    """Rank the images of a class by a score of their difficulty, and select the easiest, medium or hardest ones.

    `medium` starts at the median of the ranks and continues on both sides in turn, as in DELT (Shen et al., CVPR 2025).
    """

    def __init__(self, *, teacher: dict[str, Any], outputs: Literal["training", "clean"], pick: Pick):
        """Take what the base class takes, and which images to `pick`: easy, medium or hard.

        Raises:
            ValueError: `pick` is none of these.
        """
        super().__init__(teacher=teacher, outputs=outputs)
        check_choice("pick", pick, PICKS)
        self.pick: Pick = pick

    def select(
        self, dynamics: Dynamics, real: RealSet, c: int, ipc: int, generator: torch.Generator
    ) -> Tensor:
        """See `DynamicsCoreset`."""
        index = real.train.of_class(c)
        p, norms = dynamics.probabilities(index), dynamics.norms(index)
        return select_ranked(self.difficulty(p, norms, c, generator), ipc, self.pick)

    @abstractmethod
    def difficulty(self, p: Tensor, norms: Tensor, c: int, generator: torch.Generator) -> Tensor:
        """Return a score of each image of class `c`, `(n,)`; a larger score is harder.

        Args:
            p: predicted probabilities `(K, n, k)` at K points of the training, oldest first.
            norms: L2 norms of the embeddings, `(K, n)`.
            c: the class of the images.
            generator: for methods that select at random.
        """


def checked_share(beta: float) -> float:
    """Return `beta`, the share of images that are dropped.

    Raises:
        ValueError: it is not in [0, 1).
    """
    if not 0 <= beta < 1:
        raise ValueError(f"method.beta must be in [0, 1), got {beta}. Example: method.beta=0.3")
    return beta


def without_hardest(difficulty: Tensor, beta: float, count: int) -> Tensor:
    """Return the positions of n images without the share `beta` of hardest ones; at least `count`, easiest first."""
    n = len(difficulty)
    return difficulty.argsort(stable=True)[: max(count, n - int(beta * n))]


def errors(p: Tensor, c: int) -> Tensor:
    """Return the L2 distances of probabilities `(K, n, k)` from the one-hot label of class `c`, `(K, n)`: EL2N."""
    target = torch.zeros(p.shape[-1], dtype=p.dtype, device=p.device)
    target[c] = 1
    norms: Tensor = (p - target).norm(dim=2)
    return norms


def margins(p: Tensor, c: int) -> Tensor:
    """Return the probability of class `c` minus the largest one of the other classes, `(K, n)`, in [-1, 1]."""
    others = p.clone()
    others[..., c] = -torch.inf
    return p[..., c] - others.amax(2)
