"""The parts of a run, built from its configuration: what goes with what, and the keys of what they make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dd_bench.api import Evaluator, Method, SyntheticSet
from dd_bench.data.dataset import RealSet
from dd_bench.data.labels import label_mode
from dd_bench.models.architecture import Architecture
from dd_bench.models.network import Network
from dd_bench.pipeline import provenance
from dd_bench.pipeline.keys import Keys
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.loggers import MultiLogger
from dd_bench.runtime.runtime import Runtime
from dd_bench.teachers.teacher_spec import TeacherSpec
from dd_bench.training.protocol import Protocol
from dd_bench.training.scoring import accuracy


@dataclass
class RunParts:
    """The parts of a run, and the resolved configuration they came from.

    Attributes:
        config: resolved, plain data.
        method_name: the choice in `conf/method/`, or the method that the card of a set from elsewhere names.
        logger: a logger beside log.jsonl.
        remarks: on the run, for the notes of its record.
    """

    config: dict[str, Any]
    method_name: str
    evaluator_name: str
    runtime: Runtime
    protocol: Protocol
    real: RealSet
    architecture: Architecture
    method: Method
    evaluator: Evaluator
    logger: MultiLogger
    teachers: tuple[TeacherSpec, ...] = ()
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Names the output folder, and remembers the revision of the code before anybody commits another."""
        provenance.code()
        if not getattr(self.method, "citation", ""):  # every card has it, and hours of distilling come before
            who = type(self.method).__name__
            raise ValueError(f"{who} has no citation. Add: citation = 'Authors, Title, Venue'")
        self.out = Path(str(self.config["out"]))  # out=5 is a number to Hydra
        self.ipc, self.seed, self.num_sets = (int(self.config[k]) for k in ("ipc", "seed", "num_sets"))
        self.keys = Keys(self.config, self.real, self.architecture, self.teachers, self.runtime)

    def check(self) -> str | None:
        """Returns why these parts do not go together, or None."""
        real = self.real.train_only()
        return (
            self.architecture.check_shape()
            or self.method.check_dataset(real, self.ipc, self.architecture)
            or self.method.check_teachers(real, self.ipc, self.teachers)
            or self._check_teacher()
            or self.check_evaluation()
        )

    def check_evaluation(self) -> str | None:
        """Returns why networks cannot be measured under this protocol on this dataset, or None."""
        return self.evaluator.check_protocol(self.protocol) or self.evaluator.check_dataset(
            self.real, self.architecture
        )

    def set_key(self, index: int) -> str:
        """Returns the content key of synthetic set number `index`."""
        return self.keys.synthetic_set(self.method.uses_teachers, self.ipc, self.seed, index)

    def record_key(self, sets: list[str]) -> str:
        """Returns the content key of a record of `sets`: keys, or digests of folders."""
        return self.keys.record(sets, self.protocol, self.seed)

    def check_labels(self, syn: SyntheticSet) -> str | None:
        """Returns why the protocol's teachers cannot label a set, or None."""
        if self.protocol.labels is not None and label_mode(syn.labels) == "soft":
            return (
                f"the set has soft labels of its own, and protocol {self.protocol.name} has others "
                f"({self.protocol.labels.kind}). Use a protocol without labels, e.g. protocol=mtt-1000"
            )
        return self._check_teacher()

    def _check_teacher(self) -> str | None:
        labels = self.protocol.labels
        if labels is None or not self.protocol.uses_teachers or self.teachers or labels.source:
            return None
        return f"protocol {self.protocol.name} needs a teacher. Use teacher=convnet_bn"

    def cache(self) -> Cache:
        """Returns the cache, with no seconds spent in it yet."""
        return Cache(Path(str(self.config["cache"])))

    def test_accuracy(self, net: Network) -> float:
        """Returns the accuracy of a network on the test data, for the card of a teacher alone."""
        return accuracy(net, self.real.test.batches(1000), self.runtime)
