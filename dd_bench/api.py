"""The public API for plug-ins: base classes of methods and evaluators, their contexts, and shared functions.

A method creates a synthetic set and receives a `DistillContext`. An evaluator measures a synthetic set and receives
an `EvaluationContext`.

Shape letters: `n` samples, `c` channels, `h w` height and width, `k` classes, `b` images of one class in a batch,
`d` embedding dimension, `p` parameters in one flat vector, `r` repeats. `ipc` is images per class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet, Split, tensor_set
from dd_bench.data.decode import decode, encode, tile
from dd_bench.data.graph_dataset import GraphSplit, training_graphs
from dd_bench.data.graphs import Graphs, GraphShape, coalesce, segment_indices
from dd_bench.data.inputs import Inputs, LazyInputs
from dd_bench.data.node_dataset import NodeSplit, training_nodes
from dd_bench.data.nodes import Adjacency, NodeGraph, NodeShape, undirected
from dd_bench.data.preprocess import Preprocess, channel_statistics, fit_preprocess
from dd_bench.distillation.batchnorm_statistics import HookedTeacher
from dd_bench.distillation.clusters import centroids, nearest_unused, representatives
from dd_bench.distillation.coreset import build_coreset
from dd_bench.distillation.init import (
    check_class_sizes,
    class_labels,
    initial_images,
    random_index,
    random_rows,
)
from dd_bench.distillation.matching import check_norm, class_chunks, mean_match, real_batch
from dd_bench.distillation.ranking import PICKS, Pick, select_ranked
from dd_bench.distillation.straight_through import StraightThrough
from dd_bench.distillation.unroll import (
    GRADIENTS,
    CompiledDifferentiator,
    Differentiator,
    EagerDifferentiator,
    EpochTarget,
    InnerLoop,
    InnerStep,
)
from dd_bench.evaluation.curves import Curve, CurveFolder, recorded_curve
from dd_bench.evaluation.fresh_networks import FreshNetworks, LabelCost
from dd_bench.evaluation.graph_metrics import GRAPH_METRICS, GraphMetric, graph_score, majority, size_only
from dd_bench.evaluation.node_baselines import label_propagation, largest_class
from dd_bench.evaluation.selection import StackedBest
from dd_bench.models.architecture import Architecture
from dd_bench.models.network import Network, batch_coupled, executed_norms
from dd_bench.records.best_runs import VALIDATION
from dd_bench.records.intervals import paired_difference, t_interval
from dd_bench.records.record import Score
from dd_bench.runtime import seeding
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.checkpoint import State, Stateful
from dd_bench.runtime.context import ContextWithNotes
from dd_bench.runtime.files import content_key, write_atomic
from dd_bench.runtime.outer_loop import Diverged, OuterLoop
from dd_bench.runtime.progress import Progress
from dd_bench.runtime.runtime import Runtime
from dd_bench.runtime.seeding import generator, seed_for, seeded
from dd_bench.runtime.shards import Shard, build_shards
from dd_bench.runtime.transfer import to_device
from dd_bench.runtime.workers import Tick, no_tick, run_in_processes
from dd_bench.synthetic.base import SyntheticImages, SyntheticSet
from dd_bench.synthetic.compensated import CompensatedSet
from dd_bench.synthetic.graphs import GraphSet, SyntheticGraphs, TreeSet, Weighting
from dd_bench.synthetic.images import ImageSet
from dd_bench.synthetic.nodes import CONTEXT, NodeSet
from dd_bench.synthetic.preview import preview_png
from dd_bench.teachers.backbones import Backbone
from dd_bench.teachers.context import TeacherContext, check_backbone
from dd_bench.teachers.dynamics import OUTPUTS, Dynamics, training_dynamics
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
from dd_bench.training.compilation import uses_compilation
from dd_bench.training.linear_head import head_gradient, one_hot, ridge_weights, unit_rows
from dd_bench.training.loop import train
from dd_bench.training.losses import Loss, Target, Weighted, at_least_float32, classification_loss
from dd_bench.training.parameter_vector import FunctionalNetwork
from dd_bench.training.protocol import ProbeRecipe, Protocol
from dd_bench.training.recipe import Recipe, parse
from dd_bench.training.resume import Checkpoints
from dd_bench.training.scoring import accuracy, correct_by_class, eval_batch_size, eval_batches
from dd_bench.training.views import ViewRecipe, Views, augment_images, boxes

__all__ = [
    "CONTEXT",
    "GRADIENTS",
    "GRAPH_METRICS",
    "OUTPUTS",
    "PICKS",
    "VALIDATION",
    "Adjacency",
    "Architecture",
    "Augment",
    "Backbone",
    "Cache",
    "Checkpoints",
    "CompensatedSet",
    "CompiledDifferentiator",
    "Curve",
    "CurveFolder",
    "Differentiator",
    "DistillContext",
    "Diverged",
    "Draw",
    "Dynamics",
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
    "LazyInputs",
    "Loss",
    "Measurement",
    "Method",
    "Network",
    "NodeGraph",
    "NodeSet",
    "NodeShape",
    "NodeSplit",
    "Pick",
    "Preprocess",
    "ProbeRecipe",
    "Progress",
    "Protocol",
    "RealSet",
    "RealTraining",
    "Recipe",
    "Runtime",
    "Score",
    "Shard",
    "Split",
    "StackedBest",
    "State",
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
    "ViewRecipe",
    "Views",
    "Weighted",
    "Weighting",
    "accuracy",
    "at_least_float32",
    "augment_images",
    "batch_coupled",
    "boxes",
    "build_coreset",
    "cache_entry",
    "centroids",
    "channel_statistics",
    "check_backbone",
    "check_class_sizes",
    "check_norm",
    "checkpoint_in",
    "class_chunks",
    "class_embeddings",
    "class_labels",
    "classification_loss",
    "coalesce",
    "correct_by_class",
    "decode",
    "encode",
    "eval_batch_size",
    "eval_batches",
    "executed_norms",
    "experts",
    "feature_network",
    "fetch_from",
    "fetch_split",
    "fit_preprocess",
    "generator",
    "graph_score",
    "head_gradient",
    "initial_images",
    "label_propagation",
    "labelled_data",
    "largest_class",
    "majority",
    "mean_match",
    "nearest_unused",
    "no_tick",
    "one_hot",
    "paired_difference",
    "parse",
    "random_index",
    "random_rows",
    "reading_entry",
    "real_batch",
    "recorded_curve",
    "released_experts",
    "representatives",
    "ridge_weights",
    "run_in_processes",
    "seed_for",
    "seeded",
    "segment_indices",
    "select_ranked",
    "size_only",
    "t_interval",
    "tensor_set",
    "tile",
    "to_device",
    "train",
    "trained_network",
    "training_dynamics",
    "training_graphs",
    "training_nodes",
    "undirected",
    "unit_rows",
    "untrained_feature_network",
    "uses_compilation",
    "write_atomic",
]


@dataclass(kw_only=True)
class DistillContext(ContextWithNotes, TeacherContext):
    """Everything a method may use: random streams, networks, teachers, the outer loop and the cache.

    Attributes:
        architecture: network architecture of the run, for the input shape and number of classes of the dataset.
        loop: the outer loop.
        base: the set that the run starts from (`base=FOLDER`), or None. `Method.check_base` has accepted it.
        is_done: returns whether another process has finished the synthetic set in the meantime.
        bits: bits per value of the images during distillation (`method.bits`), or None; see `StraightThrough`.
    """

    architecture: Architecture
    loop: OuterLoop
    base: SyntheticSet | None = None
    is_done: Callable[[], bool] = lambda: False
    bits: int | None = None
    _has_images: bool = field(default=False, init=False)

    def shards(self, builds: Mapping[str, Callable[[DistillContext], Shard]]) -> dict[str, Shard]:
        """Build the missing shards of a set, and return all shards by name. Several processes may share the work.

        `builds[name]` receives a context with a separate outer loop and returns the shard `name`. Its random
        streams must depend on `name`.
        """

        def build(name: str) -> tuple[Shard, float, Callable[[], None]]:
            ctx = replace(self, loop=self.loop.branch(f"shards/{name}"))
            shard = builds[name](ctx)
            return shard, ctx.loop.seconds_before, ctx.loop.clean_up

        shards, before = build_shards(
            self.loop.shards, {name: partial(build, name) for name in builds}, self.is_done
        )
        self.loop.seconds_before += before
        return shards

    def steps(
        self,
        iterations: int,
        state: State,
        name: str = "distill",
        check: Callable[[int], None] | None = None,
        preview: Callable[[], SyntheticSet] | None = None,
    ) -> Iterator[int]:
        """Yield the step numbers of an outer loop, see `OuterLoop`.

        `state` contains every tensor and optimiser that a step changes and a later step reads. Dropout accepts no
        generator, so each step seeds the global generators with a seed that depends on the step number. `preview`
        returns the synthetic set of the current step, for the previews of `log_images_every`. With `bits`, the images
        are `state["images"]`.
        """
        picture = None if preview is None else lambda: preview_png(preview())
        quantised = None
        if self.bits is not None and isinstance(images := state.get("images"), Tensor):
            quantised = StraightThrough(images, self.bits)
            state, self._has_images = {**state, "full-precision images": quantised.latent}, True
        for step in self.loop.steps(iterations, state, name, check, picture):
            straight_through = nullcontext() if quantised is None else quantised.step()
            with seeding.seeded(self.device, self.seed_for("global", name, step)), straight_through:
                yield step

    def check_bits_used(self) -> None:
        """Raise ValueError if there is a `bits` that the method has not used, because it has no `state["images"]`."""
        if self.bits is not None and not self._has_images:
            raise ValueError(
                f"method.bits={self.bits} requires a method that optimises images, but this method has not done so. "
                f"Use method.store=uint{self.bits} to quantise its set"
            )

    def log(self, **values: Tensor | float) -> None:
        """Log scalars of the current step, without waiting for the device."""
        self.loop.log(**values)

    def network(self, architecture: Architecture, *name: str | int) -> Network:
        """Return a network initialised randomly from the random stream `name`."""
        return architecture.fresh(self.seed_for("network", *name), self.device)

    def compiled(self, function: Callable[..., Tensor], images: int) -> Callable[..., Tensor]:
        """Return `function`, compiled if compilation saves time for `images` images in the whole run.

        The first argument of `function` is a network. The compiled version converts the network to channels-last. One
        compilation serves all networks of an architecture.
        """
        if not uses_compilation(images, self.architecture.shape, self.runtime):
            return function
        fast = torch.compile(function, dynamic=False)

        def call(net: Network, *tensors: Tensor) -> Tensor:
            value: Tensor = fast(net.to(memory_format=torch.channels_last), *tensors)
            return value

        return call


@dataclass(kw_only=True)
class EvaluationContext(TeacherContext):
    """Everything an evaluator may use. An evaluator yields its results and writes nothing into the context.

    Attributes:
        architecture: network architecture of the run, for the input shape and number of classes of the dataset.
        protocol: how fresh networks are trained.
        ipc: images per class of the set.
        finished: indices of the fresh networks that were already scored, before the run was interrupted.
        work: folder of the states of unfinished networks; None to save nothing.
        checkpoint_seconds: minimum time between two checkpoints of a network, in seconds.
        curve_folder: folder of the training curves of networks; None to write none.
        set_seconds: seconds that the set took, with its preparations; None if its card does not contain them.
    """

    architecture: Architecture
    protocol: Protocol
    ipc: int
    finished: frozenset[int] = field(default=frozenset())
    work: Path | None = None
    checkpoint_seconds: float = 60.0
    curve_folder: Path | None = None
    set_seconds: float | None = None

    def unfinished(self, syn: SyntheticSet) -> Checkpoints | None:
        """Return where the states of networks that are trained on `syn` are saved, or None if they are not saved."""
        if self.work is None:
            return None
        return Checkpoints(self.work / content_key(syn.identity()), self.checkpoint_seconds)

    def curves(self, syn: SyntheticSet) -> CurveFolder | None:
        """Return where the training curves of networks on `syn` are written, or None if they are not written."""
        return (
            None if self.curve_folder is None else CurveFolder(self.curve_folder, content_key(syn.identity()))
        )


class Measurement(NamedTuple):
    """One result of an evaluator.

    Attributes:
        scores: all scores of one fresh network, one for each metric. Empty if the measurement has only notes or a label
            cost, which concern the whole set.
        notes: notes for the record.
        label_cost: cost of the labels that the networks are trained on. None if these are the labels stored in the set.
    """

    scores: Sequence[Score] = ()
    notes: Sequence[str] = ()
    label_cost: LabelCost | None = None


class Method(ABC):
    """Base class of distillation methods, which compute a small synthetic set from a real training set.

    A method has no default values in Python: `conf/method/<name>.yaml` contains every hyper-parameter. A step draws
    its random numbers from generators such as `ctx.generator(role, step)`, so a resumed run gives the same bytes.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    citation: str
    smoke: ClassVar[dict[str, Any]] = {}
    """Overrides that shorten a run on a tiny dataset to about a second; used by the conformance tests."""
    deterministic: ClassVar[bool] = False
    """Whether the synthetic set depends only on the real data and is the same for every seed."""
    uses_teachers: ClassVar[bool] = False
    """Whether the synthetic set depends on the teachers of the run."""
    in_shards: ClassVar[bool] = False
    """Whether several processes may create one set together, with `ctx.shards`."""
    kinds: ClassVar[tuple[str, ...]] = ("images", "graphs")
    """Kinds of the sets that it returns, see `SyntheticSet.kind`."""
    whole: ClassVar[bool] = False
    """Whether its set is the whole training set, which has no IPC. Only for methods of dd_bench."""

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """Return why this method cannot distil `real` at this `ipc`, or None if it can."""
        if real.modality not in self.modalities:
            name, supported = type(self).__name__, " and ".join(f"{kind}s" for kind in self.modalities)
            return f"{name} distils {supported}, but dataset {real.name!r} contains {real.modality}s"
        return None

    def check_teachers(self, real: RealSet, ipc: int, teachers: Sequence[TeacherSpec]) -> str | None:
        """Return why this method cannot use these teachers, or None; called before a teacher is trained."""
        return None

    def check_base(
        self, base: SyntheticSet, real: RealSet, ipc: int, teachers: Sequence[TeacherSpec]
    ) -> str | None:
        """Return why this method cannot start from the set `base` and use these teachers, or None.

        Called instead of `check_teachers` in a run with `base=FOLDER`. The set was made from `real`.
        """
        return f"{type(self).__name__} does not start from another set. Use base=null"

    def prepare(self, real: RealSet, ctx: DistillContext) -> None:  # noqa: B027  most methods prepare nothing
        """Build what `distill` needs and other runs can reuse, such as experts, and store it in `ctx.cache`."""

    @abstractmethod
    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> SyntheticSet:
        """Return the synthetic set. `real` contains only the training split."""


class Evaluator(ABC):
    """Base class of evaluators, which measure a synthetic set by training fresh networks."""

    main_metric: str
    smoke: ClassVar[tuple[str, ...]] = ()
    """Hydra overrides that shorten measuring a tiny set to about a second; used by the conformance tests."""
    repeats: ClassVar[tuple[str, ...]] = ("num_networks",)
    """Hyper-parameters that set the number of repeats or of evaluation points, not what is measured.

    Records that differ only in these hyper-parameters are ranked together.
    """

    uses_backbone: ClassVar[bool] = False
    """Whether it trains linear heads on the run's only teacher, by a protocol with `probe`."""

    validation_scores: ClassVar[bool] = False
    """Whether the networks of a protocol with `selection=best_on_val` have the score `val`, which `keep` requires."""

    def total_networks(self) -> int:
        """Return the number of measurements of networks on one set, for the progress; 0 if it is not known."""
        return int(getattr(self, "num_networks", 0))

    def check_protocol(self, protocol: Protocol) -> str | None:
        """Return why this evaluator does not support this protocol, or None; called before distillation."""
        return None

    def check_dataset(self, real: RealSet, architecture: Architecture) -> str | None:
        """Return why sets of this dataset cannot be measured with this network, or None; called before distillation."""
        return None

    def check_set(self, syn: SyntheticSet, real: RealSet) -> str | None:
        """Return why this synthetic set cannot be measured, or None if it can."""
        return None

    @abstractmethod
    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """Yield one measurement for each fresh network that is not in `ctx.finished`.

        The first measurement may have no scores. It then contains the notes and the label cost of the whole set, and a
        resumed run yields it again. The pipeline fills in `Score.set`.
        """
