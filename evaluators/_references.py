"""Reference accuracies: networks trained on the whole training set, or on images in its place, and cached.

Every set of a dataset is compared with the same reference, and a search over hundreds of networks survives a kill.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dd_bench.api import (
    Architecture,
    Cache,
    Inputs,
    RealSet,
    RealTraining,
    Recipe,
    Runtime,
    accuracy,
    cache_entry,
    checkpoint_in,
    reading_entry,
    trained_network,
    write_atomic,
)

_KIND, _FILE = "reference", "accuracy.json"


@dataclass(frozen=True)
class Reference:
    """How networks are trained, and on which data; they are tested after the last step.

    Attributes:
        real: the networks are tested on it, and trained on it unless there are images.
        recipe: of the training; the targets are the classes.
        cache: the folder of the cache. A killed training resumes from its last epoch.
        images: `(n, c, h, w)`, with labels `(n,)` or `(n, k)`, instead of the training set.
        identity: of these images, for the cache key.
    """

    real: RealSet
    recipe: Recipe
    runtime: Runtime
    cache: Path
    images: Inputs | None = None
    labels: Tensor | None = None
    identity: str | None = None

    def of(self, architecture: Architecture, seed: int, store: Cache | None = None) -> dict[str, float]:
        """Returns the accuracy on `test`, and on `val` if the dataset holds some out, of the network of this seed.

        Also `finite`, 1 or 0: a network that diverged has chance accuracy; and the `seconds` that it took.

        Raises:
            ValueError: there are images without an identity to cache them by, or the cache entry is damaged.
        """
        if (self.images is None) != (self.identity is None):
            raise ValueError("images are cached by their identity, and the training set has its own")
        training = self._training(architecture)

        def build(folder: Path) -> float:
            checkpoint = (
                checkpoint_in(folder) if self.images is None else None
            )  # a few images are trained fast
            net, before = trained_network(training, seed, checkpoint, data=self._data())
            splits = {"test": self.real.test} | ({} if self.real.val is None else {"val": self.real.val})
            found = {name: accuracy(net, split.batches(1000), self.runtime) for name, split in splits.items()}
            found["finite"] = float(all(bool(torch.isfinite(p).all()) for p in net.parameters()))
            write_atomic(folder / _FILE, json.dumps(found).encode())
            return before

        store = store or Cache(self.cache)
        folder = cache_entry(store, _KIND, self._key(training, seed), build)
        with reading_entry(folder):
            found: dict[str, float] = json.loads((folder / _FILE).read_text())
        return found | {"seconds": store.seconds[folder.name]}

    def known(self, architecture: Architecture, seed: int) -> bool:
        """Whether the cache holds the result of `of`."""
        return Cache(self.cache).has(_KIND, self._key(self._training(architecture), seed))

    def _training(self, architecture: Architecture) -> RealTraining:
        return RealTraining(self.real, architecture, self.recipe, self.runtime)

    def _key(self, training: RealTraining, seed: int) -> dict[str, Any]:
        """Returns the cache key; an accuracy is the same reference on every device."""
        key = {name: value for name, value in training.identity().items() if name != "device"}
        return key | {"seed": seed} | ({} if self.identity is None else {"images": self.identity})

    def _data(self) -> tuple[Inputs, Tensor] | None:
        return None if self.images is None or self.labels is None else (self.images, self.labels)

    def shared(self) -> Reference:
        """Returns what another process is given: images of its own, which are shared."""
        if self.images is None or self.labels is None:
            return self
        return replace(self, images=self.images.clone(), labels=self.labels.clone())


def of_length(recipe: Recipe, epochs: int) -> Recipe:
    """Returns the recipe for so many epochs, its milestones and warm-up at the same shares of them."""
    if recipe.steps is not None:
        return recipe.model_copy(update={"steps": None, "epochs": epochs})
    share = epochs / recipe.epochs
    return recipe.model_copy(
        update={
            "epochs": epochs,
            "milestones": tuple(sorted({max(1, round(m * share)) for m in recipe.milestones})),
            "warmup": min(epochs - 1, round(recipe.warmup * share)),
        }
    )
