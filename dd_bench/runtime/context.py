"""The context shared by all parts of a run: seed and random streams, device and precision, and the cache."""

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
    """Seed, device, precision and cache of a run.

    Attributes:
        seed: seed of the synthetic set (for methods) or of the run (for evaluators).
        runtime: device and precision.
        cache: content-addressed cache, shared between runs.
    """

    seed: int
    runtime: Runtime
    cache: Cache

    @property
    def device(self) -> torch.device:
        """The device of all tensors."""
        return self.runtime.device

    def generator(self, *name: str | int) -> torch.Generator:
        """Return a generator on the device for the random stream `name`, e.g. `("real", step)`."""
        return seeding.generator(self.device, self.seed, *name)

    def stream(self, *name: str | int) -> seeding.Stream:
        """Return the host and device generators of the stream `name`, e.g. for augmentation."""
        return seeding.stream(self.device, self.seed, *name)

    def seed_for(self, *name: str | int) -> int:
        """Return the seed of the stream `name`."""
        return seeding.seed_for(self.seed, *name)


@dataclass(kw_only=True)
class ContextWithNotes(RunContext):
    """A context that collects notes for the record.

    Attributes:
        notes: the notes in the order in which they were added, without duplicates.
    """

    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add a note for the record and log it as a warning."""
        if text not in self.notes:
            self.notes.append(text)
            _log.warning(text)
