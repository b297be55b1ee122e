"""What selection by features shares: one trained network, and a choice within each class."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import Context, Method, too_few_images
from dd_bench.data.dataset import RealSet
from dd_bench.distill.coreset import selected
from dd_bench.models.architecture import Architecture
from dd_bench.synthetic.base import SyntheticSet
from dd_bench.teachers.feature_networks import class_embeddings, teacher
from dd_bench.training.recipe import Recipe, parse


class FeatureCoreset(Method):
    """Selects training samples class by class, by L2 in the embedding of a network trained on the whole set.

    The network is the same whatever the run's seed: all selections of a sweep share one, from the cache.
    """

    smoke: ClassVar[dict[str, Any]] = {"teacher.epochs": 1}

    def __init__(self, *, teacher: dict[str, Any]):
        """Takes the recipe by which the feature network is trained."""
        self.recipe = parse(Recipe, teacher, "method.teacher")

    def unsupported(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().unsupported(real, ipc, architecture):
            name = type(self).__name__.lower()
            instead = f"{name}_graphs" if real.modality == "graph" else name.removeprefix("graph")
            return f"{reason}. Use method={instead}"
        return too_few_images(real, ipc, ipc)

    def prepare(self, real: RealSet, ctx: Context) -> None:
        """Trains the feature network."""
        teacher(real, ctx.architecture, self.recipe, 0, ctx)

    def distill(self, real: RealSet, ipc: int, ctx: Context) -> SyntheticSet:
        """See `Method`."""
        net = teacher(real, ctx.architecture, self.recipe, 0, ctx)
        chosen = []
        for c in range(real.num_classes):
            features = class_embeddings(net, real, c).double()  # (n_c, d)
            chosen.append(real.train.of_class(c)[self.select(features, ipc, ctx.seed_for("select", c))])
        return selected(real, torch.cat(chosen))

    @abstractmethod
    def select(self, features: Tensor, ipc: int, seed: int) -> Tensor:
        """Returns the rows to keep, `(ipc,)`, of one class's features `(n_c, d)`."""
