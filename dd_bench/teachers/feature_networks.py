"""Feature networks: networks trained on the real training set as feature extractors, cached between runs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.models.architecture import Architecture
from dd_bench.models.network import Network
from dd_bench.runtime.context import RunContext
from dd_bench.runtime.seeding import seed_for
from dd_bench.teachers.trained_network import (
    WEIGHTS,
    RealTraining,
    cache_entry,
    checkpoint_in,
    load_weights,
    save_weights,
    trained_network,
)
from dd_bench.training.recipe import Recipe
from dd_bench.training.scoring import eval_batch_size


def feature_network(
    real: RealSet, architecture: Architecture, recipe: Recipe, index: int, ctx: RunContext
) -> Network:
    """Return feature network number `index`, trained on `real.train` with `recipe`, in eval mode.

    The cache key contains the data, their preprocessing, the architecture, the recipe, the index and the precision. It
    does not contain the seed of the run, so all methods and seeds of a sweep share the network.

    Raises:
        ValueError: the cache entry is damaged.
        Diverged: the trained network is not finite.
    """
    training = RealTraining(real, architecture, recipe, ctx.runtime)
    title = f"feature network {index}"

    def build(folder: Path) -> float:
        net, seconds = trained_network(training, _seed(index), checkpoint_in(folder), title=title)
        save_weights(
            net,
            folder / WEIGHTS,
            title=title,
            epoch=training.epochs,
            knob="method.teacher.lr",
            lr=recipe.lr,
        )
        return seconds

    entry = cache_entry(ctx.cache, "teacher", training.identity() | {"index": index}, build)
    return load_weights(untrained_feature_network(architecture, index, ctx), entry / WEIGHTS)


def untrained_feature_network(architecture: Architecture, index: int, ctx: RunContext) -> Network:
    """Return feature network number `index` before its training."""
    return architecture.fresh(seed_for(_seed(index), "init"), ctx.device)


def _seed(index: int) -> int:
    return seed_for(0, "teacher", index)


@torch.no_grad()
def class_embeddings(net: Network, real: RealSet, c: int) -> Tensor:
    """Return the embeddings `(n_c, d)` of the training images `real.train.of_class(c)`, in this order."""
    size = eval_batch_size(net, real.shape)
    return torch.cat(
        [net.embed(real.train.inputs(part)) for part in torch.split(real.train.of_class(c), size)]
    )
