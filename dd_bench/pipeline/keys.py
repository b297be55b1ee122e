"""Content keys: hashes of everything that a synthetic set or a record depends on.

A key is computed from configuration names and hyper-parameters, never from the Python path of a class; see `identity`.
It does not depend on the code of shipped methods and evaluators, because a change of code that affects results also
increases `NUMBERS_VERSION`.

Kind of device and precision:

- *Records* depend on the kind of the device (cpu or cuda) and on the precision (fp32, tf32 or bf16). CPUs
  and CUDA round differently and give different dropout masks for the same seed. A record of one is never used for a
  run on the other.
- *Sets* depend on the kind of the device, because distillation draws random numbers on the device. They depend on the
  precision if it is TF32, which the whole run uses, or if teachers are used (recovery uses bfloat16 with them). Keys of
  sets that were made on a CPU without teachers contain neither.
- *Teachers, experts and stored labels* depend on the kind of the device and on the precision of their training, see
  `Runtime.identity`.

The name of a GPU, the number of devices, processes and threads, and deterministic kernels change only the last bits
of sums. They are part of the record (see `Environment`), but of no key.
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
                **self._base(),
                **self._teachers(uses_teachers),
                "real": self._real(),
                "architecture": self.architecture.describe(),
                "ipc": ipc,
                "seed": seed,
                "set": index,
                **self._computed_by(),
            }
        )

    def record(self, sets: Sequence[str], protocol: Protocol, seed: int, uses_backbone: bool = False) -> str:
        """Return the content key of a record.

        Args:
            sets: content keys of its sets, or digests of their folders.
            protocol: how fresh networks or linear heads are trained.
            seed: seed of the run.
            uses_backbone: whether the evaluator uses the run's teacher, see `Evaluator.uses_backbone`.
        """
        inputs = self.record_inputs(sets, protocol, seed, uses_backbone)
        return record_key(inputs, self.runtime.device.type, self.runtime.precision)

    def record_inputs(
        self, sets: Sequence[str], protocol: Protocol, seed: int, uses_backbone: bool = False
    ) -> str:
        """Return the content key of the sets, the data, the network, the evaluator and the protocol of a record.

        In version 2 of records, it was the key of the record.
        """
        return content_key(
            {
                "numbers": NUMBERS_VERSION,
                "sets": list(sets),
                "real": self._real(),
                "architecture": self.architecture.describe(),
                "evaluator": self.config["evaluator"],
                "protocol": self.config["protocol"],
                **self._teachers(protocol.uses_teachers or uses_backbone),
                **self._stored_labels(protocol),
                "seed": seed,
            }
        )

    def _base(self) -> dict[str, str]:
        """Return the digest of the set that the method starts from, if any. Its folder is not part of the key."""
        base = self.config.get("base")
        return {} if base is None else {"base": base["digest"]}

    def _computed_by(self) -> dict[str, str]:
        """Return the kind of the device, except cpu, and the precision if it is tf32. Older keys contain neither."""
        runtime = self.runtime
        device = {} if runtime.device.type == "cpu" else {"device": runtime.device.type}
        return device | ({"precision": runtime.precision} if runtime.precision == "tf32" else {})

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


def record_key(inputs: str, device: str, precision: str) -> str:
    """Return the key of the record of `inputs` (see `Keys.record_inputs`) on a kind of device, in a precision."""
    return content_key({"inputs": inputs, "device": device, "precision": precision})
