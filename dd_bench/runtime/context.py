"""What any piece of a run draws on: named random streams of one seed, device and precision, and the cache."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import torch

from dd_bench.runtime import seeding
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.runtime import Runtime

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class RunContext:
    """Seed, device and cache.

    Attributes:
        seed: of this synthetic set (methods) or of this run (evaluators).
        runtime: device and precision.
        cache: content-addressed, shared between runs.
    """

    seed: int
    runtime: Runtime
    cache: Cache

    @property
    def device(self) -> torch.device:
        """Where tensors live."""
        return self.runtime.device

    def generator(self, *name: str | int) -> torch.Generator:
        """Returns the generator of the stream `name`, e.g. `("real", step)`."""
        return seeding.generator(self.device, self.seed, *name)

    def stream(self, *name: str | int) -> seeding.Stream:
        """Returns the stream `name` for augmentation."""
        return seeding.stream(self.device, self.seed, *name)

    def seed_for(self, *name: str | int) -> int:
        """Returns the seed of the stream `name`."""
        return seeding.seed_for(self.seed, *name)


@dataclass(kw_only=True)
class ContextWithNotes(RunContext):
    """A context that keeps remarks for the record.

    Attributes:
        notes: the remarks, each once, in order.
    """

    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keeps a remark for the record, and logs it as a warning."""
        if text not in self.notes:
            self.notes.append(text)
            _log.warning(text)
