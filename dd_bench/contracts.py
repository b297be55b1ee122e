"""The contracts of plug-ins: base classes of methods and evaluators, and the contexts that they receive.

A method creates a synthetic set and receives a `DistillContext`. An evaluator measures a synthetic set and receives
an `EvaluationContext`. Plug-ins import these classes from `dd_bench.api`.
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

from dd_bench.data.dataset import RealSet
from dd_bench.distillation.straight_through import StraightThrough
from dd_bench.evaluation.curves import CurveFolder
from dd_bench.evaluation.fresh_networks import LabelCost
from dd_bench.models.architecture import Architecture
from dd_bench.models.network import Network
from dd_bench.records.record import Score
from dd_bench.runtime import seeding
from dd_bench.runtime.checkpoint import State
from dd_bench.runtime.context import ContextWithNotes
from dd_bench.runtime.files import content_key
from dd_bench.runtime.outer_loop import OuterLoop
from dd_bench.runtime.shards import Shard, build_shards
from dd_bench.synthetic.base import SyntheticSet
from dd_bench.synthetic.preview import preview_png
from dd_bench.teachers.context import TeacherContext
from dd_bench.teachers.teacher_spec import TeacherSpec
from dd_bench.training.compilation import uses_compilation
from dd_bench.training.protocol import Protocol
from dd_bench.training.resume import Checkpoints


@dataclass(kw_only=True)
class DistillContext(ContextWithNotes, TeacherContext):
    """Everything a method may use: random streams, networks, teachers, the outer loop and the cache.

    Attributes:
        architecture: network architecture of the run, for the input shape and number of classes of the dataset.
        loop: the outer loop.
        base: the set that the run starts from (`base=FOLDER`), or None. `Method.check_base` has accepted it.
        is_done: returns whether another process has finished the synthetic set in the meantime.
        bits: bits per value of the images during distillation (`method.bits`), or None; see `StraightThrough`.
        ipc: images per class of the set of the run, for `Method.prepare`.
    """

    architecture: Architecture
    loop: OuterLoop
    base: SyntheticSet | None = None
    is_done: Callable[[], bool] = lambda: False
    bits: int | None = None
    ipc: int = 1
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
        set_device: the device on which the set was made; None if its card does not contain it.
    """

    architecture: Architecture
    protocol: Protocol
    ipc: int
    finished: frozenset[int] = field(default=frozenset())
    work: Path | None = None
    checkpoint_seconds: float = 60.0
    curve_folder: Path | None = None
    set_seconds: float | None = None
    set_device: str | None = None

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
        notes: notes for the record, which are logged as warnings.
        label_cost: cost of the labels that the networks are trained on. None if these are the labels stored in the set.
        results: results as text. They are notes of the record too, and are logged as information.
    """

    scores: Sequence[Score] = ()
    notes: Sequence[str] = ()
    label_cost: LabelCost | None = None
    results: Sequence[str] = ()


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
