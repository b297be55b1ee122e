"""Content keys: hashes of everything that a synthetic set or a record depends on.

A key is computed from configuration names and hyper-parameters, never from the Python path of a class; see `identity`.
It does not depend on the device, which changes only the last bits of results. It does not depend on the code of shipped
methods and evaluators either, because a change of code that affects results also increases `NUMBERS_VERSION`. If
teachers are used, the key depends on their precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dd_bench import NUMBERS_VERSION
from dd_bench.data.dataset import RealSet
from dd_bench.models.architecture import Architecture
from dd_bench.runtime.files import content_key
from dd_bench.runtime.runtime import Runtime
from dd_bench.teachers.label_store import LabelStore
from dd_bench.teachers.teacher_spec import TeacherSpec
from dd_bench.training.protocol import Protocol


@dataclass(frozen=True)
class Keys:
    """The parts of a run that its keys depend on; see `RunParts`."""

    config: Mapping[str, Any]
    real: RealSet
    architecture: Architecture
    teachers: Sequence[TeacherSpec]
    runtime: Runtime

    def synthetic_set(self, uses_teachers: bool, ipc: int, seed: int, index: int) -> str:
        """Return the content key of synthetic set number `index`."""
        return content_key(
            {
                "numbers": NUMBERS_VERSION,
                "method": self.config["method"],
                **self._teachers(uses_teachers),
                "real": self._real(),
                "architecture": self.architecture.describe(),
                "ipc": ipc,
                "seed": seed,
                "set": index,
            }
        )

    def record(self, sets: Sequence[str], protocol: Protocol, seed: int) -> str:
        """Return the content key of a record. `sets` are content keys of its sets, or digests of their folders."""
        return content_key(
            {
                "numbers": NUMBERS_VERSION,
                "sets": list(sets),
                "real": self._real(),
                "architecture": self.architecture.describe(),
                "evaluator": self.config["evaluator"],
                "protocol": self.config["protocol"],
                **self._teachers(protocol.uses_teachers),
                **self._stored_labels(protocol),
                "seed": seed,
            }
        )

    def _teachers(self, used: bool) -> dict[str, Any]:
        """Return the teachers and their precision. The order of the teachers decides which one guides an image."""
        if not used:
            return {}
        teachers = [[t.name, t.describe()] for t in self.teachers]
        return {"teachers": teachers, "autocast": self.runtime.autocast}

    def _stored_labels(self, protocol: Protocol) -> dict[str, str]:
        """Return the digest of the stored labels that the protocol replays, if any."""
        labels = protocol.labels
        if labels is None or labels.kind != "replay" or labels.source is None:
            return {}
        return {"stored labels": LabelStore(Path(labels.source), self.runtime.device).digest}

    def _real(self) -> list[Any]:
        real = self.real
        return [real.digest, len(real.train), real.preprocess.digest, real.flip]
