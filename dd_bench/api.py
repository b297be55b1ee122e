"""The contracts: a method makes synthetic sets, an evaluator measures them, a context serves both.

Shapes throughout: `n` samples, `c` channels, `h w` height and width, `k` classes, `b` images of a class in a
batch, `d` embedding, `p` flat parameters, `r` repeats. `ipc` is images per class.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.models.architecture import Architecture
from dd_bench.models.network import Network
from dd_bench.records.record import Score, TeacherId
from dd_bench.runtime import seeding
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.checkpoint import State
from dd_bench.runtime.outer_loop import OuterLoop
from dd_bench.runtime.runtime import Runtime
from dd_bench.runtime.shards import Piece, make_all
from dd_bench.synthetic.base import SyntheticSet
from dd_bench.teachers.teachers import Measure, Teacher, TeacherSpec, teacher_of
from dd_bench.training.compilation import repays_compilation
from dd_bench.training.protocol import Protocol

_log = logging.getLogger(__name__)


class Told(NamedTuple):
    """How networks are taught, the bytes of labels and the teacher forwards that training one costs, and by whom."""

    mode: str
    label_bytes: int
    teacher_forwards: int
    teachers: tuple[TeacherId, ...] = ()


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
        teachers: the zoo of the run; see `teachers_of`.
        measure: accuracy of a network on held-out data, for the card of a teacher and nothing else.
        over: whether another process has finished the set meanwhile.
        ipc: images per class of the run.
        told: what an evaluator's networks were told, if not the set's own labels.
        met: the teachers that `teachers_of` has given, in their order; for the record.
    """

    seed: int
    runtime: Runtime
    architecture: Architecture
    cache: Cache
    loop: OuterLoop
    protocol: Protocol
    finished: frozenset[int] = frozenset()
    notes: list[str] = field(default_factory=list)
    teachers: tuple[TeacherSpec, ...] = ()
    measure: Measure | None = None
    over: Callable[[], bool] = lambda: False
    ipc: int = 0
    told: Told | None = None
    met: list[TeacherId] = field(default_factory=list)

    def teachers_of(self, real: RealSet) -> list[Teacher]:
        """Returns the teachers that `teacher=[...]` names, training those that are missing.

        Raises:
            ValueError: it names none.
        """
        if not self.teachers:
            raise ValueError(
                "this needs a teacher, and the run has none. Use teacher=convnet_bn, or several: [a,b]"
            )
        found = [teacher_of(spec, real, self.cache, self.runtime, self.measure) for spec in self.teachers]
        self.met[:] = [TeacherId(name=t.name, digest=t.digest, accuracy=t.accuracy) for t in found]
        return found

    def pieces(self, builds: Mapping[str, Callable[[Context], Piece]]) -> dict[str, Piece]:
        """Returns the named pieces of a set, making what is missing; several processes may share the work.

        A build gets a context with its own loop, and draws all its randomness by its own name.
        """

        def make(name: str) -> tuple[Piece, float, Callable[[], None]]:
            ctx = replace(self, loop=self.loop.branch(f"pieces/{name}"))
            piece = builds[name](ctx)
            return piece, ctx.loop.seconds_before, ctx.loop.forget

        makes = {name: partial(make, name) for name in builds}
        pieces, before = make_all(self.loop.pieces, makes, self.over)
        self.loop.seconds_before += before
        return pieces

    @property
    def device(self) -> torch.device:
        """Where tensors live."""
        return self.runtime.device

    def steps(self, iterations: int, state: State, name: str = "distill") -> Iterator[int]:
        """Yields the steps of an outer loop; `state` is everything that survives a step. See `OuterLoop`.

        Dropout takes no generator, so the global ones are seeded inside each step, by its number.
        """
        for step in self.loop.steps(iterations, state, name):
            with seeding.seeded(self.device, self.seed_for("global", name, step)):
                yield step

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

    def compiled(self, function: Callable[..., Tensor], images: int) -> Callable[..., Tensor]:
        """Returns `function(net, ...)` compiled, if a run that passes `images` images through it repays that.

        The network is then laid out channels-last. One compilation serves all fresh networks of an architecture.
        """
        if not repays_compilation(images, self.architecture.shape, self.runtime):
            return function
        fast = torch.compile(function, dynamic=False)

        def call(net: Network, *tensors: Tensor) -> Tensor:
            value: Tensor = fast(net.to(memory_format=torch.channels_last), *tensors)
            return value

        return call

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

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    citation: str
    smoke: ClassVar[dict[str, Any]] = {}
    """Overrides that make a run take a second on a tiny set; the conformance suite uses them."""
    deterministic: ClassVar[bool] = False
    """Whether the data alone decide the set: at every seed it is the same."""
    taught: ClassVar[bool] = False
    """Whether the set depends on the run's teachers."""
    in_pieces: ClassVar[bool] = False
    """Whether several processes may make one set together, by `ctx.pieces`."""

    def unsupported(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """Returns why this method cannot distil `real` at this `ipc`, or None."""
        if real.modality not in self.modalities:
            name, known = type(self).__name__, " and ".join(f"{kind}s" for kind in self.modalities)
            return f"{name} distils {known}, dataset {real.name!r} holds {real.modality}s"
        return None

    def unteachable(self, real: RealSet, ipc: int, teachers: Sequence[TeacherSpec]) -> str | None:
        """Returns why these teachers cannot guide this method, or None; asked before any of them is trained."""
        return None

    def prepare(self, real: RealSet, ctx: Context) -> None:  # noqa: B027  most methods prepare nothing
        """Builds what `distill` needs and several runs share, in `ctx.cache`."""

    @abstractmethod
    def distill(self, real: RealSet, ipc: int, ctx: Context) -> SyntheticSet:
        """Returns the synthetic set. `real` is the training split alone."""


class Evaluator(ABC):
    """Measures a synthetic set by fresh networks."""

    main_metric: str
    smoke: ClassVar[tuple[str, ...]] = ()
    """Hydra overrides under which it measures a tiny set in a second; the conformance suite uses them."""
    repeats: ClassVar[tuple[str, ...]] = ("num_networks",)
    """Knobs that say how often is measured or looked, not what: records that differ in them alone share a ranking."""

    def refuses(self, protocol: Protocol) -> str | None:
        """Returns why networks cannot be measured under this protocol, or None; asked before anything is distilled."""
        return None

    def unfit(self, real: RealSet, architecture: Architecture) -> str | None:
        """Returns why no set of this dataset can be measured with this network, or None; asked before distilling."""
        return None

    def unsupported(self, syn: SyntheticSet, real: RealSet) -> str | None:
        """Returns why this set cannot be measured, or None."""
        return None

    @abstractmethod
    def run(self, syn: SyntheticSet, real: RealSet, ctx: Context) -> Iterator[list[Score]]:
        """Yields one fresh network after the other, leaving out `ctx.finished`: all its scores, one a metric.

        `Score.set` is filled in by the runner.
        """


def too_few_images(real: RealSet, ipc: int, images: int, init: str | None = None) -> str | None:
    """Returns why `images` images of every class cannot be drawn from `real` without replacement, or None.

    `init` is the method's choice of that name, if it has one: then noise is the way out.
    """
    counts = real.train.counts
    c = int(counts.argmin())
    if images <= int(counts[c]):
        return None
    each = "" if images == ipc else f" ({images} real images a class)"
    most = int(counts[c]) * ipc // images
    instead = (["method.init=noise"] if init else []) + ([f"ipc<={most}"] if most else ["more real images"])
    who = f"init={init}" if init else "this method"
    return (
        f"ipc={ipc}{each} exceeds class {real.class_names[c]!r} of {real.name} ({int(counts[c])} images), "
        f"and {who} samples without replacement. Use {' or '.join(instead)}"
    )
