"""Train networks on the real training set and cache them: feature networks, teachers, experts, references.

All of these trainings use the functions of this module for cache keys, seeds, the decision to compile, checkpoints, and
files of weights with their checks. A killed training resumes after its last complete epoch. A training that a
signal has stopped resumes after its last complete step. Both give the same weights as without interruption.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.inputs import Inputs
from dd_bench.models.architecture import Architecture
from dd_bench.models.network import Network
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.checkpoint import State, remove
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.runtime.progress import Progress
from dd_bench.runtime.runtime import Runtime
from dd_bench.runtime.seeding import seed_for
from dd_bench.training.batches import Fetch, fetch_from, fetch_split
from dd_bench.training.compilation import uses_compilation
from dd_bench.training.loop import GradientRule, train
from dd_bench.training.recipe import Recipe
from dd_bench.training.resume import Checkpoints, saved_epochs

_log = logging.getLogger(__name__)
WEIGHTS = "network.safetensors"


@dataclass(frozen=True)
class RealTraining:
    """How networks are trained on the real training set. Picklable, so that several processes can share it.

    Attributes:
        real: the real set; networks are trained on its training split.
        architecture: architecture of the networks.
        recipe: optimiser, schedule, epochs and augmentation.
        runtime: device and precision.
    """

    real: RealSet
    architecture: Architecture
    recipe: Recipe
    runtime: Runtime

    @property
    def epochs(self) -> int:
        """Number of epochs on the training split, even if the recipe gives a number of steps."""
        return self.recipe.with_epochs(len(self.real.train)).epochs

    def identity(self) -> dict[str, Any]:
        """Return everything that the weights depend on except their seed, for a cache key."""
        real = self.real
        return {
            "real": [real.digest, len(real.train)],
            "preprocess": real.preprocess.digest,
            "flip": real.flip,
            "architecture": self.architecture.describe(),
            "recipe": self.recipe.identity(),
            **self.runtime.identity(),
        }

    def untrained(self, seed: int) -> Network:
        """Return the initial network of the training with `seed`."""
        return self.architecture.fresh(seed_for(seed, "init"), self.runtime.device)

    def compiles(self, networks: int = 1, n: int | None = None) -> bool:
        """Return whether compilation saves time for `networks` networks on `n` images (None: the training split)."""
        samples = networks * self.recipe.samples(len(self.real.train) if n is None else n)
        return uses_compilation(samples, self.architecture.shape, self.runtime)


def trained_network(
    training: RealTraining,
    seed: int,
    checkpoint: Path | None,
    *,
    title: str | None = None,
    on_epoch: Callable[[int, Network], None] | None = None,
    on_step: Callable[[int, Network], None] | None = None,
    gradient_rule: GradientRule | None = None,
    data: tuple[Inputs, Tensor] | None = None,
    fetch: Fetch | None = None,
    networks: int = 1,
    state: State | None = None,
) -> tuple[Network, float]:
    """Train a network, resuming from its last checkpoint if there is one.

    Args:
        training: data, architecture, recipe and runtime.
        seed: seed of the initialisation (stream `init`) and of the training (stream `train`).
        checkpoint: file that is written after every epoch; None to train without checkpoints.
        title: title of the progress bar; None for no progress bar.
        on_epoch: called with the number of finished epochs and the network, before the checkpoint is written.
        on_step: called with the number of finished steps and the network.
        gradient_rule: replaces the gradient of the loss.
        data: images `(n, c, h, w)` and labels to train on instead of the training split.
        fetch: returns the images and labels of the training split, instead of `fetch_split`.
        networks: total number of networks that are trained and share the cost of compilation.
        state: further values that the callbacks change, to save with the state of the training.

    Returns:
        The network, in train mode, and the seconds that earlier, killed attempts took.

    Raises:
        CheckpointError: the checkpoint is damaged, or belongs to another network or optimiser.
    """
    real, recipe, net = training.real, training.recipe, training.untrained(seed)
    n = len(real.train) if data is None else len(data[0])
    done, seconds = (0, 0.0) if checkpoint is None else saved_epochs(checkpoint)
    bar: AbstractContextManager[Progress | None] = nullcontext()
    if title is not None:
        epochs = recipe.with_epochs(n).epochs
        _log.info("training %s: %s epochs of %s images", title, f"{epochs:,}", f"{n:,}")
        bar = Progress(title, epochs, done)
    with bar as progress:

        def after_epoch(epoch: int) -> None:
            if on_epoch is not None:
                on_epoch(epoch, net)
            if progress is not None:
                progress.advance_to(epoch, {})

        train(
            net,
            (fetch or fetch_split(real.train)) if data is None else fetch_from(*data),
            n,
            recipe,
            seed=seed_for(seed, "train"),
            runtime=training.runtime,
            flip=real.flip,
            compiled=training.compiles(networks, n),
            on_epoch=after_epoch,
            on_step=None if on_step is None else lambda step: on_step(step, net),
            gradient_rule=gradient_rule,
            checkpoint=None if checkpoint is None else Checkpoints(checkpoint),
            state=state,
        )
    return net, seconds


def cache_entry(cache: Cache, kind: str, key: dict[str, Any], build: Callable[[Path], float]) -> Path:
    """Return the folder of a cache entry, building it first if it is missing; see `Cache.entry`.

    Checkpoints are removed only after the entry is complete, so that a kill at any point loses no epoch.
    """
    entry = cache.entry(kind, key, build)
    remove(entry)
    return entry


def checkpoint_in(folder: Path, name: str = "training") -> Path:
    """Return the path of a checkpoint in the folder of a cache entry."""
    return folder / f"{name}.checkpoint.safetensors"  # the suffix that `remove` looks for


def save_weights(net: Network, path: Path, *, title: str, epoch: int, knob: str, lr: float) -> None:
    """Write the state of `net` to `path` atomically.

    Args:
        net: a network on any device, in any memory format.
        path: path of the safetensors file.
        title: name of the network, for the error message.
        epoch: number of finished epochs, for the error message.
        knob: configuration key of the learning rate, for the error message.
        lr: the learning rate, for the error message.

    Raises:
        Diverged: a value is not finite.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    if not all(bool(torch.isfinite(v).all()) for v in state.values() if v.is_floating_point()):
        raise Diverged(
            f"the weights of {title} are not finite after epoch {epoch} with {knob}={lr}. Use a smaller value"
        )
    # a fixed name, so that a resumed attempt overwrites the file of a killed one
    scratch = path.with_name(f".{path.name}")
    save_file(state, scratch)
    scratch.replace(path)


def load_weights(net: Network, path: Path) -> Network:
    """Load the weights of `net` from a file of a cache entry, and return it in eval mode.

    Raises:
        ValueError: the entry is damaged.
    """
    with reading_entry(path.parent):
        net.load_state_dict(load_file(path, device=str(next(net.parameters()).device)))
    return net.eval()


@contextmanager
def reading_entry(entry: Path) -> Iterator[None]:
    """Convert errors while reading a cache entry to a ValueError with the command to rebuild the entry.

    Raises:
        ValueError: the entry is damaged.
    """
    try:
        yield
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"cache entry {entry} is damaged ({error}). Delete it and run the command again: rm -r {entry}"
        ) from error
