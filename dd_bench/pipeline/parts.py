"""The parts of a run (method, dataset, network, ...), their compatibility checks, and the keys of its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dd_bench.contracts import Evaluator, Method
from dd_bench.data.dataset import RealSet
from dd_bench.data.labels import label_mode
from dd_bench.data.preprocess import Normalise
from dd_bench.models.architecture import Architecture
from dd_bench.models.network import Network
from dd_bench.pipeline import provenance
from dd_bench.pipeline.base_set import describe_base
from dd_bench.pipeline.keys import Keys
from dd_bench.records.tuning import Tuning
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.loggers import MultiLogger
from dd_bench.runtime.runtime import Runtime
from dd_bench.synthetic.base import SyntheticSet
from dd_bench.synthetic.distilled_set import DistilledSet
from dd_bench.synthetic.precision import check_store
from dd_bench.teachers.context import check_backbone
from dd_bench.teachers.teacher_spec import TeacherSpec
from dd_bench.training.protocol import Protocol
from dd_bench.training.scoring import accuracy, eval_batches


@dataclass
class RunParts:
    """The parts of a run (method, dataset, network, ...), and the configuration that they were built from.

    Attributes:
        config: the resolved configuration as plain data.
        method_name: the choice in `conf/method/`; for `dd-bench evaluate`, the method in the card of the set.
        logger: logger of scalars, in addition to the file log.jsonl.
        loading: peak memory while the dataset was loaded.
        notes: notes on the run for its record.
        tuning: the search that chose the hyper-parameters, or None.
        base: the set that the method starts from, if any.
        log_images_every: steps between two previews of the synthetic set; None to write none.
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
    loading: provenance.Stages
    teachers: tuple[TeacherSpec, ...] = ()
    notes: tuple[str, ...] = ()
    tuning: Tuning | None = None
    base: DistilledSet | None = None
    log_images_every: int | None = None

    def __post_init__(self) -> None:
        """Check the method's citation and set the fields that are derived from `config`."""
        provenance.code()  # cached at the start of the run, before a new commit can change the revision
        if not getattr(self.method, "citation", ""):  # cards require it; fail before hours of distillation
            who = type(self.method).__name__
            raise ValueError(f"{who} has no citation. Add: citation = 'Authors, Title, Venue'")
        self.out = Path(str(self.config["out"]))  # Hydra parses out=5 as a number
        self.ipc, self.seed, self.num_sets = (int(self.config[k]) for k in ("ipc", "seed", "num_sets"))
        self.keys = Keys(self.config, self.real, self.architecture, self.teachers, self.runtime)
        if self.base is not None:
            self.config["base"] = describe_base(self.base)

    def check(self) -> str | None:
        """Return why these parts cannot be combined, or None."""
        real = self.real.train_only()
        return (
            self._check_networks()
            or self.method.check_dataset(real, self.ipc, self.architecture)
            or check_store(self.config["method"], self.method.kinds, real.modality)
            or self._check_inputs(real)
            or self._check_teacher()
            or self.check_evaluation()
        )

    def _check_inputs(self, real: RealSet) -> str | None:
        if self.base is None:
            return self.method.check_teachers(real, self.ipc, self.teachers)
        return self.method.check_base(self.base.stored, real, self.ipc, self.teachers)

    def _check_networks(self) -> str | None:
        device = self.runtime.device
        reasons = (spec.architecture.check_determinism(device) for spec in self.teachers)
        return self.architecture.check_shape(device) or next(filter(None, reasons), None)

    def check_evaluation(self) -> str | None:
        """Return why the evaluator does not support this protocol or this dataset, or None if it supports both."""
        if self.protocol.keep is not None and not self.evaluator.validation_scores:
            return (
                f"protocol {self.protocol.name} has keep={self.protocol.keep}, which evaluator {self.evaluator_name} "
                "does not support. Use protocol.keep=null"
            )
        return (
            self._check_probe()
            or self._check_colours()
            or self.evaluator.check_protocol(self.protocol)
            or self.evaluator.check_dataset(self.real, self.architecture)
        )

    def _check_colours(self) -> str | None:
        """Return why the protocol cannot change the colours of the inputs of this dataset, or None if it can."""
        views = self.protocol.recipe.views
        if views is None or views.colour is None:
            return None
        transform = Normalise(views.colour.mean, views.colour.std)
        if self.real.preprocess.config() == transform.config():
            return None
        mean, std = (str(values).replace(" ", "") for values in (transform.mean, transform.std))
        return (
            f"protocol {self.protocol.name} changes the colours of inputs that are normalised by mean={mean} "
            f"std={std}, but those of {self.real.name} are not. Use dataset.preprocess=normalise dataset.mean={mean} "
            f"dataset.std={std}, or protocol.recipe.views.colour=null"
        )

    def _check_probe(self) -> str | None:
        """Return why the evaluator and the protocol do not both train linear heads, or both whole networks, or None."""
        protocol = self.protocol
        if not self.evaluator.uses_backbone:
            if protocol.probe is None:
                return None
            return (
                f"protocol {protocol.name} trains linear heads, and evaluator {self.evaluator_name} whole networks. "
                "Use evaluator=linear_probe"
            )
        if protocol.probe is None:
            return (
                f"evaluator {self.evaluator_name} requires a protocol of linear heads, got {protocol.name}. "
                "Use protocol=probe-1000"
            )
        return check_backbone(self.teachers)

    def set_key(self, index: int) -> str:
        """Return the content key of synthetic set number `index`."""
        return self.keys.synthetic_set(self.method.uses_teachers, self.ipc, self.seed, index)

    def record_key(self, sets: list[str]) -> str:
        """Return the content key of a record of `sets`, given as content keys or as digests of folders."""
        return self.keys.record(sets, self.protocol, self.seed, self.evaluator.uses_backbone)

    def old_record_key(self, sets: list[str]) -> str:
        """Return the key that the record of `sets` had before device and precision were part of it."""
        return self.keys.record_inputs(sets, self.protocol, self.seed, self.evaluator.uses_backbone)

    def check_labels(self, syn: SyntheticSet) -> str | None:
        """Return why networks cannot be trained on the labels of the protocol for this set, or None if they can."""
        if self.protocol.labels is not None and label_mode(syn.labels) == "soft":
            return (
                f"the set contains soft labels, but protocol {self.protocol.name} uses other labels "
                f"({self.protocol.labels.kind}). Use a protocol without labels, e.g. protocol=mtt-1000"
            )
        return self._check_teacher()

    def _check_teacher(self) -> str | None:
        labels = self.protocol.labels
        if labels is None or not self.protocol.uses_teachers or self.teachers or labels.source:
            return None
        return f"protocol {self.protocol.name} needs a teacher. Use teacher=convnet_bn"

    def check_tuning(self) -> None:
        """Raise ValueError unless the configuration has the values that `tuning` has chosen."""
        if self.tuning and (others := self.tuning.differences(self.config)):
            raise ValueError(
                f"the file of tuning= has chosen {' '.join(others)}, but this run has other values. Remove their "
                "overrides, or remove tuning="
            )

    def cache(self) -> Cache:
        """Return a new `Cache` object, whose counters of seconds start at zero."""
        return Cache(Path(str(self.config["cache"])))

    def test_accuracy(self, net: Network) -> float:
        """Return the accuracy of a network on the test data, in [0, 1]. It is only written to the cards of teachers."""
        return accuracy(net, eval_batches(net, self.real.test), self.runtime)
