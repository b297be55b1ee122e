"""The contracts: a method makes synthetic sets, an evaluator measures them, a context serves both.

Shapes throughout: `n` samples, `c` channels, `h w` height and width, `k` classes, `b` images of a class in a
batch, `d` embedding, `p` flat parameters, `r` repeats. `ipc` is images per class.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench import seeding
from dd_bench.architecture import Architecture
from dd_bench.cache import Cache
from dd_bench.checkpoint import State
from dd_bench.models.network import Network
from dd_bench.protocol import Protocol
from dd_bench.real import RealSet
from dd_bench.record import Score
from dd_bench.runtime import Runtime
from dd_bench.steps import OuterLoop
from dd_bench.synthetic import SyntheticSet

_log = logging.getLogger(__name__)


@dataclass
class Context:
    """What a method or an evaluator may use of the world: seeds, networks, the outer loop, the cache.

    Attributes:
        seed: of this synthetic set (methods) or of this run (evaluators).
        runtime: device and precision.
        architecture: the network of the run, bound to the dataset.
        cache: content-addressed, shared between runs.
        loop: the outer loop.
        protocol: how fresh networks are trained; for evaluators.
        finished: for evaluators, the networks whose scores a killed run has left behind.
        notes: remarks for the record.
    """

    seed: int
    runtime: Runtime
    architecture: Architecture
    cache: Cache
    loop: OuterLoop
    protocol: Protocol
    finished: frozenset[int] = frozenset()
    notes: list[str] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """Where tensors live."""
        return self.runtime.device

    def steps(self, iterations: int, state: State, name: str = "distill") -> Iterator[int]:
        """Yields the steps of an outer loop; `state` is everything that survives a step. See `OuterLoop`."""
        return self.loop.steps(iterations, state, name)

    def log(self, **values: Tensor | float) -> None:
        """Logs scalars of the current step; costs no synchronisation."""
        self.loop.log(**values)

    def generator(self, *name: str | int) -> torch.Generator:
        """Returns the generator of the stream `name`, e.g. `("real", step)`."""
        return seeding.generator(self.device, self.seed, *name)

    def stream(self, *name: str | int) -> seeding.Stream:
        """Returns the stream `name` for augmentation."""
        return seeding.stream(self.device, self.seed, *name)

    def seed_for(self, *name: str | int) -> int:
        """Returns the seed of the stream `name`."""
        return seeding.seed_for(self.seed, *name)

    def network(self, architecture: Architecture, *name: str | int) -> Network:
        """Returns a fresh, randomly initialised network of the stream `name`."""
        return architecture.fresh(self.seed_for("network", *name), self.device)

    def note(self, text: str) -> None:
        """Keeps a remark for the record, and shows it."""
        if text not in self.notes:
            self.notes.append(text)
            _log.warning(text)


class Method(ABC):
    """Turns a real training set into a small synthetic one.

    A method has no Python defaults: `conf/method/<name>.yaml` holds every hyper-parameter. Randomness of a step
    comes from `ctx.generator(role, step)` and the like, so that a resumed run ends with the same bytes.
    """

    modality: ClassVar[str] = "image"
    citation: ClassVar[str]
    smoke: ClassVar[dict[str, Any]] = {}
    """Overrides that make a run take a second on a tiny set; the conformance suite uses them."""

    def unsupported(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """Returns why this method cannot distil `real` at this `ipc`, or None."""
        if real.modality != self.modality:
            name = type(self).__name__
            return f"{name} distils {self.modality}s, dataset {real.name!r} holds {real.modality}s"
        return None

    def prepare(self, real: RealSet, ctx: Context) -> None:  # noqa: B027  most methods prepare nothing
        """Builds what `distill` needs and several runs share, in `ctx.cache`."""

    @abstractmethod
    def distill(self, real: RealSet, ipc: int, ctx: Context) -> SyntheticSet:
        """Returns the synthetic set. `real` is the training split alone."""


class Evaluator(ABC):
    """Measures a synthetic set by fresh networks."""

    main_metric: ClassVar[str]

    def unsupported(self, syn: SyntheticSet, real: RealSet) -> str | None:
        """Returns why this set cannot be measured, or None."""
        return None

    @abstractmethod
    def run(self, syn: SyntheticSet, real: RealSet, ctx: Context) -> Iterator[Score]:
        """Yields the scores of one fresh network after the other, leaving out `ctx.finished`.

        All scores of a network are yielded together; `Score.set` is filled in by the runner.
        """


def too_few_images(real: RealSet, ipc: int, images: int, init: str) -> str | None:
    """Returns why `images` images of every class cannot be drawn from `real` without replacement, or None."""
    counts = real.train.counts
    c = int(counts.argmin())
    if images <= int(counts[c]):
        return None
    each = "" if images == ipc else f" ({images} real images a class)"
    return (
        f"ipc={ipc}{each} exceeds class {real.class_names[c]!r} of {real.name} ({int(counts[c])} images), "
        f"and init={init} samples without replacement. Use method.init=noise or ipc<={int(counts[c]) * ipc // images}"
    )


def workdir(root: Path, key: str) -> Path:
    """Returns the folder of a run's checkpoint and logs."""
    return root / "work" / key
