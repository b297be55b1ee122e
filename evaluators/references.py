"""What networks reach on the whole training set: cached, because every set of a dataset is compared with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dd_bench import checkpoint
from dd_bench.architecture import Architecture
from dd_bench.cache import Cache
from dd_bench.protocol import Recipe
from dd_bench.real import RealSet
from dd_bench.record import write_atomic
from dd_bench.runtime import Runtime
from dd_bench.seeding import seed_for
from dd_bench.training import accuracy, repays_compilation, train

_FILE = "accuracy.json"


@dataclass(frozen=True)
class Reference:
    """How networks are trained on the whole training set; the last step counts.

    Attributes:
        recipe: of the training; the classes are what is told.
        cache: the folder of the cache. A killed training goes on from its last epoch.
    """

    real: RealSet
    recipe: Recipe
    runtime: Runtime
    cache: Path

    def of(self, architecture: Architecture, seed: int, store: Cache | None = None) -> dict[str, float]:
        """Returns the accuracy on `test`, and on `val` if the dataset holds some out, of the network of this seed."""
        real, cache = self.real, store or Cache(self.cache)
        depends_on: dict[str, Any] = {
            "real": [real.digest, len(real.train), real.preprocess.digest, real.flip],
            "architecture": architecture.describe(),
            "recipe": self.recipe.identity(),
            "seed": seed,
            "autocast": self.runtime.autocast,
        }

        def build(folder: Path) -> float:
            net = architecture.fresh(seed_for(seed, "init"), self.runtime.device)
            images = self.recipe.lasting(len(real.train)).samples(len(real.train))
            kept = folder / "training.checkpoint.safetensors"
            before = checkpoint.spent(kept)[1]
            train(
                net,
                self._fetch,
                len(real.train),
                self.recipe,
                seed=seed_for(seed, "train"),
                runtime=self.runtime,
                flip=real.flip,
                compiled=repays_compilation(images, architecture.shape, self.runtime),
                kept=kept,
            )
            splits = {"test": real.test} | ({} if real.val is None else {"val": real.val})
            found = {name: accuracy(net, split.batches(1000), self.runtime) for name, split in splits.items()}
            write_atomic(folder / _FILE, json.dumps(found).encode())
            kept.unlink(missing_ok=True)
            return before

        path = cache.entry("reference", depends_on, build) / _FILE
        found: dict[str, float] = json.loads(path.read_text())
        return found

    def _fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.real.train.inputs(index), self.real.train.labels[index]


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
