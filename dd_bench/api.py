"""What a plug-in author imports: the contracts of methods and evaluators, their contexts, and the tools they share.

A method makes synthetic sets from a `DistillContext`; an evaluator measures them from an `EvaluationContext`.

Shapes throughout: `n` samples, `c` channels, `h w` height and width, `k` classes, `b` images of a class in a
batch, `d` embedding, `p` flat parameters, `r` repeats. `ipc` is images per class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet, Split
from dd_bench.data.decode import decode, encode, tile
from dd_bench.data.graph_dataset import GraphSplit, training_graphs
from dd_bench.data.graphs import Graphs, GraphShape, coalesce, segment_indices
from dd_bench.data.inputs import Inputs
from dd_bench.data.preprocess import Preprocess
from dd_bench.distill.batchnorm_statistics import HookedTeacher
from dd_bench.distill.clusters import representatives
from dd_bench.distill.coreset import selected
from dd_bench.distill.init import check_class_sizes, class_labels, initial_images, random_index
from dd_bench.distill.matching import check_norm, class_chunks, mean_match, real_batch
from dd_bench.distill.unroll import (
    GRADIENTS,
    CompiledDifferentiator,
    Differentiator,
    EagerDifferentiator,
    EpochTarget,
    InnerLoop,
    InnerStep,
)
from dd_bench.evaluation.fresh_networks import FreshNetworks, LabelCost
from dd_bench.evaluation.graph_metrics import GRAPH_METRICS, GraphMetric, graph_score, majority, size_only
from dd_bench.models.architecture import Architecture
from dd_bench.models.network import Network, batch_coupled, executed_norms
from dd_bench.records.record import Score
from dd_bench.runtime import seeding
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.checkpoint import State, Stateful
from dd_bench.runtime.context import ContextWithNotes
from dd_bench.runtime.files import write_atomic
from dd_bench.runtime.outer_loop import Diverged, OuterLoop
from dd_bench.runtime.runtime import Runtime
from dd_bench.runtime.seeding import generator, seed_for, seeded
from dd_bench.runtime.shards import Shard, build_shards
from dd_bench.runtime.workers import Tick, run_in_processes
from dd_bench.synthetic.base import SyntheticImages, SyntheticSet
from dd_bench.synthetic.compensated import CompensatedSet
from dd_bench.synthetic.graphs import GraphSet, SyntheticGraphs, TreeSet, Weighting
from dd_bench.synthetic.images import ImageSet
from dd_bench.teachers.context import TeacherContext
from dd_bench.teachers.expert_buffer import ExpertBuffer, Storage
from dd_bench.teachers.experts import experts
from dd_bench.teachers.feature_networks import class_embeddings, feature_network, untrained_feature_network
from dd_bench.teachers.released_experts import released_experts
from dd_bench.teachers.soft_labels import labelled_data
from dd_bench.teachers.teacher_spec import TeacherSpec
from dd_bench.teachers.teachers import Teacher
from dd_bench.teachers.trained_network import (
    RealTraining,
    cache_entry,
    checkpoint_in,
    reading_entry,
    trained_network,
)
from dd_bench.training.augment import Augment, Draw
from dd_bench.training.batches import LabelledBatches, fetch_from, fetch_split
from dd_bench.training.compilation import repays_compilation
from dd_bench.training.loop import train
from dd_bench.training.losses import Loss, Target, Weighted, at_least_float32, classification_loss
from dd_bench.training.parameter_vector import FunctionalNetwork
from dd_bench.training.protocol import Protocol
from dd_bench.training.recipe import Recipe, parse
from dd_bench.training.scoring import accuracy, right_by_class
from dd_bench.training.views import boxes

__all__ = [
    "GRADIENTS",
    "GRAPH_METRICS",
    "Architecture",
    "Augment",
    "Cache",
    "CompensatedSet",
    "CompiledDifferentiator",
    "Differentiator",
    "DistillContext",
    "Diverged",
    "Draw",
    "EagerDifferentiator",
    "EpochTarget",
    "EvaluationContext",
    "Evaluator",
    "ExpertBuffer",
    "FreshNetworks",
    "FunctionalNetwork",
    "GraphMetric",
    "GraphSet",
    "GraphShape",
    "GraphSplit",
    "Graphs",
    "HookedTeacher",
    "ImageSet",
    "InnerLoop",
    "InnerStep",
    "Inputs",
    "LabelCost",
    "LabelledBatches",
    "Loss",
    "Measurement",
    "Method",
    "Network",
    "Preprocess",
    "Protocol",
    "RealSet",
    "RealTraining",
    "Recipe",
    "Runtime",
    "Score",
    "Shard",
    "Split",
    "Stateful",
    "Storage",
    "SyntheticGraphs",
    "SyntheticImages",
    "SyntheticSet",
    "Target",
    "Teacher",
    "TeacherSpec",
    "Tick",
    "TreeSet",
    "Weighted",
    "Weighting",
    "accuracy",
    "at_least_float32",
    "batch_coupled",
    "boxes",
    "cache_entry",
    "check_class_sizes",
    "check_norm",
    "checkpoint_in",
    "class_chunks",
    "class_embeddings",
    "class_labels",
    "classification_loss",
    "coalesce",
    "decode",
    "encode",
    "executed_norms",
    "experts",
    "feature_network",
    "fetch_from",
    "fetch_split",
    "generator",
    "graph_score",
    "initial_images",
    "labelled_data",
    "majority",
    "mean_match",
    "parse",
    "random_index",
    "reading_entry",
    "real_batch",
    "released_experts",
    "repays_compilation",
    "representatives",
    "right_by_class",
    "run_in_processes",
    "seed_for",
    "seeded",
    "segment_indices",
    "selected",
    "size_only",
    "tile",
    "train",
    "trained_network",
    "training_graphs",
    "untrained_feature_network",
    "write_atomic",
]


@dataclass(kw_only=True)
class DistillContext(ContextWithNotes, TeacherContext):
    """What a method may use: seeds, networks, teachers, the outer loop, the cache.

    Attributes:
        architecture: the network of the run, bound to the dataset.
        loop: the outer loop.
        is_done: whether another process has finished the set meanwhile.
    """

    architecture: Architecture
    loop: OuterLoop
    is_done: Callable[[], bool] = lambda: False

    def shards(self, builds: Mapping[str, Callable[[DistillContext], Shard]]) -> dict[str, Shard]:
        """Return the named shards of a set, building what is missing; several processes may share the work.

        A build gets a context with its own loop, and draws all its randomness by its own name.
        """

        def make(name: str) -> tuple[Shard, float, Callable[[], None]]:
            ctx = replace(self, loop=self.loop.branch(f"shards/{name}"))
            shard = builds[name](ctx)
            return shard, ctx.loop.seconds_before, ctx.loop.clean_up

        makes = {name: partial(make, name) for name in builds}
        shards, before = build_shards(self.loop.shards, makes, self.is_done)
        self.loop.seconds_before += before
        return shards

    def steps(self, iterations: int, state: State, name: str = "distill") -> Iterator[int]:
        """Yield the steps of an outer loop; `state` is everything that survives a step. See `OuterLoop`.

        Dropout takes no generator, so the global ones are seeded inside each step, by its number.
        """
        for step in self.loop.steps(iterations, state, name):
            with seeding.seeded(self.device, self.seed_for("global", name, step)):
                yield step

    def log(self, **values: Tensor | float) -> None:
        """Log scalars of the current step; costs no synchronisation."""
        self.loop.log(**values)

    def network(self, architecture: Architecture, *name: str | int) -> Network:
        """Return a fresh, randomly initialised network of the stream `name`."""
        return architecture.fresh(self.seed_for("network", *name), self.device)

    def compiled(self, function: Callable[..., Tensor], images: int) -> Callable[..., Tensor]:
        """Return `function(net, ...)` compiled, if a run that passes `images` images through it repays that.

        The network is then laid out channels-last. One compilation serves all fresh networks of an architecture.
        """
        if not repays_compilation(images, self.architecture.shape, self.runtime):
            return function
        fast = torch.compile(function, dynamic=False)

        def call(net: Network, *tensors: Tensor) -> Tensor:
            value: Tensor = fast(net.to(memory_format=torch.channels_last), *tensors)
            return value

        return call


@dataclass(kw_only=True)
class EvaluationContext(TeacherContext):
    """What an evaluator may use. Whatever it finds, it yields; nothing is written into the context.

    Attributes:
        architecture: the network of the run, bound to the dataset.
        protocol: how fresh networks are trained.
        ipc: images per class of the set.
        finished: the networks whose scores a killed run has left behind.
    """

    architecture: Architecture
    protocol: Protocol
    ipc: int
    finished: frozenset[int] = field(default=frozenset())


class Measurement(NamedTuple):
    """What an evaluator yields.

    Attributes:
        scores: all scores of one fresh network, one for each metric; empty for remarks on the whole set.
        notes: remarks for the record.
        label_cost: what the labels of the networks cost, where these are not the set's own.
    """

    scores: Sequence[Score] = ()
    notes: Sequence[str] = ()
    label_cost: LabelCost | None = None


class Method(ABC):
    """Turns a real training set into a small synthetic one.

    A method has no Python defaults: `conf/method/<name>.yaml` holds every hyper-parameter. Randomness of a step
    comes from `ctx.generator(role, step)` and the like, so that a resumed run ends with the same bytes.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    citation: str
    smoke: ClassVar[dict[str, Any]] = {}
    """Overrides that make a run take a second on a tiny set; the conformance suite uses them."""
    deterministic: ClassVar[bool] = False
    """Whether the data alone decide the set: at every seed it is the same."""
    uses_teachers: ClassVar[bool] = False
    """Whether the set depends on the run's teachers."""
    in_shards: ClassVar[bool] = False
    """Whether several processes may make one set together, by `ctx.shards`."""

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """Return why this method cannot distil `real` at this `ipc`, or None."""
        if real.modality not in self.modalities:
            name, known = type(self).__name__, " and ".join(f"{kind}s" for kind in self.modalities)
            return f"{name} distils {known}, dataset {real.name!r} holds {real.modality}s"
        return None

    def check_teachers(self, real: RealSet, ipc: int, teachers: Sequence[TeacherSpec]) -> str | None:
        """Return why these teachers cannot guide this method, or None; asked before any of them is trained."""
        return None

    def prepare(self, real: RealSet, ctx: DistillContext) -> None:  # noqa: B027  most methods prepare nothing
        """Build what `distill` needs and several runs share, in `ctx.cache`."""

    @abstractmethod
    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> SyntheticSet:
        """Return the synthetic set. `real` is the training split alone."""


class Evaluator(ABC):
    """Measures a synthetic set by fresh networks."""

    main_metric: str
    smoke: ClassVar[tuple[str, ...]] = ()
    """Hydra overrides under which it measures a tiny set in a second; the conformance suite uses them."""
    repeats: ClassVar[tuple[str, ...]] = ("num_networks",)
    """Knobs that say how often is measured or looked, not what: records that differ in them alone share a ranking."""

    def check_protocol(self, protocol: Protocol) -> str | None:
        """Return why networks cannot be measured under this protocol, or None; asked before anything is distilled."""
        return None

    def check_dataset(self, real: RealSet, architecture: Architecture) -> str | None:
        """Return why no set of this dataset can be measured with this network, or None; asked before distilling."""
        return None

    def check_set(self, syn: SyntheticSet, real: RealSet) -> str | None:
        """Return why this set cannot be measured, or None."""
        return None

    @abstractmethod
    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """Yield the measurement of one fresh network after the other, leaving out those in `ctx.finished`.

        The first measurement may have no scores: remarks and label cost of the set, which a resumed run yields again.
        `Score.set` is filled in by the pipeline.
        """
