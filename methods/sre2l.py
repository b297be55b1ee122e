"""Recovery of images from a teacher: SRe2L, CDA, INFER, RDED and their relatives, one engine of exchangeable parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import (
    Architecture,
    CompensatedSet,
    DistillContext,
    HookedTeacher,
    ImageSet,
    Method,
    RealSet,
    Shard,
    SyntheticSet,
    Teacher,
    TeacherSpec,
    check_class_sizes,
    executed_norms,
    parse,
    repays_compilation,
)

from ._recovery.engine import Engine
from ._recovery.patches import Patches, composites
from ._recovery.views import RecoverViews

Start = Callable[[int, Tensor], Tensor]
VARIABLES, INITS, TEACHERS = (
    ("images", "compensator"),
    ("noise", "real", "patches"),
    ("first", "each", "cycle"),
)


class Recover(Method):
    """Per unit: Adam on pixels, until a frozen teacher recognises the classes and its BatchNorm layers the batch.

        loss = CE(f(A(x)), y) + statistics * sum_l m_l (|var_l - running_var_l| + |mean_l - running_mean_l|)

    with m of the first layer `first_layer`, of others 1, and A one crop, flip and roll for the whole batch. The
    rate falls to zero as a cosine; the last iterate counts. What is optimised is the image of each class of a slot
    (`images`: SRe2L, Yin et al., NeurIPS 2023; CDA, Yin and Shen, TMLR 2024, whose crops begin whole and become
    small), or one `compensator` added to a natural image of every class (INFER, Zhang et al., ICLR 2025). With
    `iterations: 0` and `init: patches` it is RDED (Sun et al., CVPR 2024), which optimises nothing.

    A unit is a slot and a chunk of classes, or a natural set and a teacher; it draws all randomness by its name,
    so who computes it, and when, changes nothing.

    Deviations from the released code: images are stored as 8-bit pixels, not JPEG; the paddings of crops are the
    mean colour; a compensator is stored as float16 and clamped where it is added, not once; layers that no image
    passes are left out; total variation and L2 priors, zero in every released script, are not offered. Of G-VBSM
    and EDC, cycled teachers and real or RDED starts are; their convolution, patch and class-wise statistics, the
    averaged matching, densification and flatness term are not.
    """

    uses_teachers = True
    in_shards = True
    smoke: ClassVar[dict[str, Any]] = {"iterations": 2, "patches.images": 4, "patches.crops": 2}

    def __init__(
        self,
        *,
        variable: str,
        init: str,
        iterations: int,
        lr_img: float,
        betas: tuple[float, float],
        statistics: float,
        first_layer: float,
        classes: int | None,
        teachers: str,
        views: dict[str, Any],
        patches: dict[str, Any],
        citation: str,
    ):
        """Takes the keys of `conf/method/sre2l.yaml`, which says what they are."""
        for name, choice, choices in (
            ("variable", variable, VARIABLES),
            ("init", init, INITS),
            ("teachers", teachers, TEACHERS),
        ):
            if choice not in choices:
                raise ValueError(f"method.{name}={choice!r} is unknown; take one of {', '.join(choices)}")
        if classes is not None and classes < 1:
            raise ValueError(f"method.classes={classes}: wanted at least 1 class a batch, or null for all")
        if (variable == "compensator") != (teachers == "each"):
            raise ValueError(
                f"method.teachers={teachers} with method.variable={variable}: a compensator has one teacher of its "
                "own (each), an image follows the first or all in turn (cycle)"
            )
        if variable == "compensator" and init != "real":
            raise ValueError(
                f"method.init={init}: a compensator is added to real images. Use method.init=real"
            )
        for name, value in (("lr_img", lr_img), ("statistics", statistics), ("first_layer", first_layer)):
            if not 0 <= value < math.inf:
                raise ValueError(f"method.{name}={value}: wanted a number >= 0")
        self.variable, self.init, self.iterations = variable, init, iterations
        self.lr_img, self.betas, self.statistics, self.first_layer = lr_img, betas, statistics, first_layer
        self.classes, self.schedule, self.citation = classes, teachers, citation
        self.views = parse(RecoverViews, views, "method.views")
        self.patches = parse(Patches, patches, "method.patches")

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture):
            return reason
        if real.preprocess.kind != "normalise":
            return "pixels are clamped channel by channel, which whitening mixes. Use dataset.preprocess=normalise"
        if self.variable == "compensator" and self.classes not in (None, real.num_classes):
            return (
                f"a compensator is shared by all {real.num_classes} classes, and method.classes={self.classes} puts "
                "fewer into a batch, which would make several of them and break the budget. Use method.classes=null"
            )
        if self.variable == "compensator":  # how many natural sets there are, the teachers decide
            return None
        if self.init != "patches":
            return None if self.init == "noise" else check_class_sizes(real, ipc, ipc, self.init)
        cells = ipc * self.patches.factor**2
        if reason := check_class_sizes(real, ipc, cells):
            return reason
        if cells > self.patches.images:
            return (
                f"ipc={ipc} is {cells} patches a class, cut from method.patches.images={self.patches.images}. "
                f"Use method.patches.images={cells} or more"
            )
        return None

    def check_teachers(self, real: RealSet, ipc: int, teachers: Sequence[TeacherSpec]) -> str | None:
        """See `Method`."""
        if not teachers:
            return "it follows a teacher, and the run has none. Use teacher=convnet_bn"
        if self.variable == "compensator":
            c, m = real.num_classes, len(teachers)
            k = self.natural_sets(ipc, c, m)
            if k == 0:
                return (
                    f"ipc={ipc} of {c} classes is {ipc * c} images, and one natural image of each class with a "
                    f"compensator of each of {m} teachers is {c + m}. Use ipc={-(-(c + m) // c)} or more"
                )
            if reason := check_class_sizes(real, ipc, k):
                return reason
        if self.iterations == 0:
            return None
        for spec in teachers:
            if spec.config.weights == "squeeze" and not executed_norms(
                spec.architecture.fresh(0, torch.device("cpu")), real.shape
            ):
                return (
                    f"teacher {spec.name} ({spec.architecture.title}) has no BatchNorm layer, whose running statistics "
                    f"are matched. Use teacher=convnet_bn, or a network with BatchNorm (a ConvNet with norm=batchnorm)"
                )
        return None

    @staticmethod
    def natural_sets(ipc: int, num_classes: int, teachers: int) -> int:
        """Returns K: natural sets that leave room for a compensator of each teacher, K (C + M) <= ipc C."""
        return ipc * num_classes // (num_classes + teachers)

    def prepare(self, real: RealSet, ctx: DistillContext) -> None:
        """Trains the teachers."""
        ctx.teachers_of(real)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> SyntheticSet:
        """See `Method`."""
        teachers = ctx.teachers_of(real)
        if self.variable == "compensator":
            return self._compensated(real, ipc, teachers, ctx)
        engine = self._engine(
            real, teachers if self.schedule == "cycle" else teachers[:1], ipc * real.num_classes, ctx
        )
        start = self._start(real, ipc, teachers[0], ctx)
        chunks = torch.arange(real.num_classes, device=ctx.device).split(self.classes or real.num_classes)
        units = {
            f"slot{slot}-class{int(chunk[0])}": partial(self._images, engine, start, slot, chunk)
            for slot in range(ipc)
            for chunk in chunks
        }
        shards = ctx.shards(units)
        pixels = torch.cat([shards[name]["pixels"] for name in units])  # slot by slot
        classes = torch.arange(real.num_classes).repeat(ipc)
        order = classes.argsort(stable=True)
        return ImageSet.of(real, pixels[order], classes[order], "pixel")

    def _images(self, engine: Engine, start: Start, slot: int, chunk: Tensor, ctx: DistillContext) -> Shard:
        """Recovers the images of a slot and a chunk of classes `(b,)`."""
        x = start(slot, chunk).clone()
        engine.optimise(x, lambda: x, chunk, f"slot{slot}-class{int(chunk[0])}", ctx, clamped=True)
        pixels = engine.real.preprocess.inverse(x).clamp(0, 1)
        return {"pixels": (pixels * 255).round().to(torch.uint8)}

    def _compensated(
        self, real: RealSet, ipc: int, teachers: Sequence[Teacher], ctx: DistillContext
    ) -> CompensatedSet:
        k, m = self.natural_sets(ipc, real.num_classes, len(teachers)), len(teachers)
        engines = [self._engine(real, [teacher], k * m * real.num_classes, ctx) for teacher in teachers]
        index = real.train.draw(k, ctx.generator("init")).T.contiguous()  # (K, C): a natural set a row
        units = {
            f"set{i}-teacher{j}": partial(self._compensator, engines[j], index[i], f"set{i}-teacher{j}")
            for i in range(k)
            for j in range(m)
        }
        shards = ctx.shards(units)
        compensators = torch.stack([shards[name]["compensator"] for name in units])  # (K M, c, h, w)
        return CompensatedSet.of(real, index.flatten(), compensators.unflatten(0, (k, m)))

    def _compensator(self, engine: Engine, index: Tensor, name: str, ctx: DistillContext) -> Shard:
        """Recovers what is added to the natural images `index (C,)`."""
        train = engine.real.train
        natural, u = train.inputs(index), torch.zeros(1, *engine.real.shape, device=ctx.device)
        engine.optimise(u, lambda: natural + u, train.labels[index], name, ctx, clamped=False)
        return {"compensator": u[0].half()}

    def _engine(self, real: RealSet, teachers: Sequence[Teacher], images: int, ctx: DistillContext) -> Engine:
        compiled = repays_compilation(self.iterations * images, real.shape, ctx.runtime)
        tapped = [HookedTeacher(teacher) for teacher in teachers] if self.iterations else []
        return Engine(
            real,
            tapped,
            self.views,
            self.iterations,
            self.lr_img,
            self.betas,
            self.statistics,
            self.first_layer,
            compiled,
        )

    def _start(self, real: RealSet, ipc: int, observer: Teacher, ctx: DistillContext) -> Start:
        """Returns what gives the first images of a slot and of classes `(b,)`: inputs `(b, c, h, w)`."""
        if self.init == "noise":

            def noise(slot: int, chunk: Tensor) -> Tensor:
                of = ctx.generator("noise", slot, int(chunk[0]))
                return torch.randn((len(chunk), *real.shape), generator=of, device=ctx.device)

            return noise
        if self.init == "real":
            index = real.train.draw(ipc, ctx.generator("init"))  # (k, ipc)
            return lambda slot, chunk: real.train.inputs(index[chunk, slot])
        units = {
            f"patches{c}": partial(composites, real, ipc, c, observer, self.patches)
            for c in range(real.num_classes)
        }
        made = ctx.shards(units)
        pixels = torch.stack([made[name]["pixels"] for name in units]).to(ctx.device)  # (k, ipc, c, h, w)
        return lambda slot, chunk: real.preprocess(pixels[chunk, slot].float() / 255)
