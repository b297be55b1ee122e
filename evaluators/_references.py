"""What fresh networks reach after a training, cached: on the whole training set, or on images that stand for it.

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
    Recipe,
    Runtime,
    accuracy,
    repays_compilation,
    seed_for,
    spent,
    train,
    write_atomic,
)

_KIND, _FILE = "reference", "accuracy.json"


@dataclass(frozen=True)
class Reference:
    """How networks are trained, and on what; the last step counts.

    Attributes:
        real: what they are tested on, and trained on unless there are images.
        recipe: of the training; the classes are what is told.
        cache: the folder of the cache. A killed training goes on from its last epoch.
        images: `(n, c, h, w)`, with labels `(n,)` or `(n, k)`, instead of the training set.
        identity: of these images, in the cache.
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

        Beside them `finite`, 1 or 0: one that diverged answers by chance; and the `seconds` that it took.

        Raises:
            ValueError: there are images without an identity to cache them by.
        """
        if (self.images is None) != (self.identity is None):
            raise ValueError("images are cached by their identity, and the training set has its own")
        real, runtime = self.real, self.runtime

        def build(folder: Path) -> float:
            net = architecture.fresh(seed_for(seed, "init"), runtime.device)
            samples = self.recipe.lasting(self.size).samples(self.size)
            kept = folder / "training.checkpoint.safetensors"
            before = spent(kept)[1]
            train(
                net,
                self._fetch,
                self.size,
                self.recipe,
                seed=seed_for(seed, "train"),
                runtime=runtime,
                flip=real.flip,
                compiled=repays_compilation(samples, architecture.shape, runtime),
                checkpoint=kept if self.images is None else None,  # that of a few images is short
            )
            splits = {"test": real.test} | ({} if real.val is None else {"val": real.val})
            found = {name: accuracy(net, split.batches(1000), runtime) for name, split in splits.items()}
            found["finite"] = float(all(bool(torch.isfinite(p).all()) for p in net.parameters()))
            write_atomic(folder / _FILE, json.dumps(found).encode())
            kept.unlink(missing_ok=True)
            return before

        store = store or Cache(self.cache)
        folder = store.entry(_KIND, self._identity(architecture, seed), build)
        found: dict[str, float] = json.loads((folder / _FILE).read_text())
        return found | {"seconds": store.seconds[folder.name]}

    def known(self, architecture: Architecture, seed: int) -> bool:
        """Whether `of` has its answer in the cache."""
        return Cache(self.cache).has(_KIND, self._identity(architecture, seed))

    def _identity(self, architecture: Architecture, seed: int) -> dict[str, Any]:
        real = self.real
        return {
            "real": [real.digest, len(real.train), real.preprocess.digest, real.flip],
            "architecture": architecture.describe(),
            "recipe": self.recipe.identity(),
            "seed": seed,
            "autocast": self.runtime.autocast,
        } | ({} if self.identity is None else {"images": self.identity})

    def shared(self) -> Reference:
        """Returns what another process is given: images of its own, which are shared."""
        if self.images is None or self.labels is None:
            return self
        return replace(self, images=self.images.clone(), labels=self.labels.clone())

    @property
    def size(self) -> int:
        """Number of images that are trained on."""
        return len(self.real.train) if self.images is None else len(self.images)

    def _fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        if self.images is None or self.labels is None:
            return self.real.train.inputs(index), self.real.train.labels[index]
        return self.images[index], self.labels[index]


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
