"""Base class of the coresets that select samples by their features."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import (
    Architecture,
    DistillContext,
    Method,
    Network,
    RealSet,
    Recipe,
    SyntheticSet,
    build_coreset,
    check_class_sizes,
    class_embeddings,
    feature_network,
    parse,
)

from ._arguments import check_choice


class FeatureCoreset(Method):
    """Select samples class by class, by L2 distance in the embedding of a network trained on the whole training set.

    By default, the feature network does not depend on the seed of the set. All coresets of a sweep therefore share one
    cached network. With `feature_network=per_set`, each set has its own network, with other initial weights and
    batches. The scores of several sets then also show how much the selection depends on the network.
    """

    smoke: ClassVar[dict[str, Any]] = {"teacher.epochs": 1}

    def __init__(self, *, teacher: dict[str, Any], feature_network: str):
        """Take the training recipe of the feature network, and whether all sets have the same one.

        Raises:
            ValueError: `feature_network` is unknown, or the recipe is invalid.
        """
        check_choice("feature_network", feature_network, ("shared", "per_set"))
        self.recipe = parse(Recipe, teacher, "method.teacher")
        self.shared = feature_network == "shared"

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture):
            name = type(self).__name__.lower().removeprefix("graph").removeprefix("node")
            suffix = {"graph": "_graphs", "node": "_nodes"}.get(real.modality, "")
            return f"{reason}. Use method={name}{suffix}"
        return check_class_sizes(real, ipc, ipc)

    def prepare(self, real: RealSet, ctx: DistillContext) -> None:
        """Train the feature network."""
        self.network(real, ctx)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> SyntheticSet:
        """See `Method`."""
        net, chosen = self.network(real, ctx), []
        for c in range(real.num_classes):
            features = class_embeddings(net, real, c).double()  # (n_c, d)
            chosen.append(real.train.of_class(c)[self.select(features, ipc, ctx.seed_for("select", c))])
        return build_coreset(real, torch.cat(chosen))

    def network(self, real: RealSet, ctx: DistillContext) -> Network:
        """Return the trained feature network of this set. Its number is the seed of the set, or 0 if it is shared."""
        return feature_network(real, ctx.architecture, self.recipe, 0 if self.shared else ctx.seed, ctx)

    @abstractmethod
    def select(self, features: Tensor, ipc: int, seed: int) -> Tensor:
        """Return the row indices `(ipc,)` to select from the features `(n_c, d)` of one class."""
