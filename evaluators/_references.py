"""Cached accuracies of networks trained on the whole training set, or on given images.

All synthetic sets of a dataset share the same references. A killed search over hundreds of networks can resume.
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
    Tick,
    accuracy,
    cache_entry,
    checkpoint_in,
    eval_batches,
    no_tick,
    reading_entry,
    trained_network,
    write_atomic,
)

_KIND, _FILE = "reference", "accuracy.json"


@dataclass(frozen=True)
class Reference:
    """The data and the recipe that reference networks are trained with. The networks are tested after the last step.

    Attributes:
        real: Real set. Networks are tested on its test and validation splits, and trained on its training split unless
            `images` is set.
        recipe: Training recipe.
        runtime: Device and precision.
        cache: Cache folder. A killed training on the whole training set resumes after its last complete epoch.
        images: Images `(n, c, h, w)` to train on in place of the training set.
        labels: Labels `(n,)` or `(n, k)` of `images`.
        identity: Identity of `images` for the cache key.
    """

    real: RealSet
    recipe: Recipe
    runtime: Runtime
    cache: Path
    images: Inputs | None = None
    labels: Tensor | None = None
    identity: str | None = None

    def measure(
        self, architecture: Architecture, seed: int, store: Cache | None = None, tick: Tick = no_tick
    ) -> dict[str, float]:
        """Train the network of this seed, unless its result is cached; call `tick` after every epoch.

        Returns:
            Accuracy in [0, 1] on the split `test` and, if the dataset has one, on `val`; `finite`, which is 0 if the
            network diverged and its accuracy is therefore at chance, else 1; and `seconds`, the training time.

        Raises:
            ValueError: Only one of `images` and `identity` is set, or the cache entry is damaged.
        """
        if (self.images is None) != (self.identity is None):
            raise ValueError("images and identity of a Reference must both be set, or both be None")
        training = self._training(architecture)

        def build(folder: Path) -> float:
            # Training on a few images is fast and needs no checkpoint.
            checkpoint = checkpoint_in(folder) if self.images is None else None
            net, before = trained_network(
                training, seed, checkpoint, data=self._data(), on_epoch=lambda epoch, net: tick()
            )
            splits = {"test": self.real.test} | ({} if self.real.val is None else {"val": self.real.val})
            result = {
                name: accuracy(net, eval_batches(net, split), self.runtime) for name, split in splits.items()
            }
            result["finite"] = float(torch.stack([p.isfinite().all() for p in net.parameters()]).all())
            write_atomic(folder / _FILE, json.dumps(result).encode())
            return before

        store = store or Cache(self.cache)
        folder = cache_entry(store, _KIND, self._key(training, seed), build)
        with reading_entry(folder):
            result: dict[str, float] = json.loads((folder / _FILE).read_text())
        return result | {"seconds": store.seconds[folder.name]}

    def is_cached(self, architecture: Architecture, seed: int) -> bool:
        """Return whether the cache contains the result of `measure`."""
        return Cache(self.cache).has(_KIND, self._key(self._training(architecture), seed))

    @property
    def epochs(self) -> int:
        """Number of epochs of a training."""
        return self.recipe.with_epochs(len(self.real.train if self.images is None else self.images)).epochs

    def _training(self, architecture: Architecture) -> RealTraining:
        return RealTraining(self.real, architecture, self.recipe, self.runtime)

    def _key(self, training: RealTraining, seed: int) -> dict[str, Any]:
        """Return the cache key. References trained on a CPU have keys without the kind of the device."""
        key = training.identity()
        if key["device"] == "cpu":
            del key["device"]
        return key | {"seed": seed} | ({} if self.identity is None else {"images": self.identity})

    def _data(self) -> tuple[Inputs, Tensor] | None:
        return None if self.images is None or self.labels is None else (self.images, self.labels)

    def shared(self) -> Reference:
        """Return a copy with its own tensors, which are moved to shared memory for other processes."""
        if self.images is None or self.labels is None:
            return self
        return replace(self, images=self.images.clone(), labels=self.labels.clone())


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """Return the recipe with `epochs` epochs, and with its milestones and warm-up scaled accordingly."""
    factor = epochs / (recipe.steps or recipe.epochs)
    return recipe.model_copy(
        update={
            "steps": None,
            "epochs": epochs,
            "milestones": tuple(sorted({max(1, round(m * factor)) for m in recipe.milestones})),
            "warmup": min(epochs - 1, round(recipe.warmup * factor)),
            "epochs_by_size": (),
        }
    )
