"""Recovery of images from a teacher: SRe2L, CDA, INFER, RDED and their relatives, one engine of exchangeable parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dd_bench.architecture import Architecture
from dd_bench.base import Context, Method, too_few_images
from dd_bench.pieces import Piece
from dd_bench.protocol import parse
from dd_bench.real import RealSet
from dd_bench.statistics import Tapped
from dd_bench.synthetic import CompensatedSet, ImageSet, SyntheticSet
from dd_bench.training import repays_compilation
from dd_bench.zoo import TeacherSpec, executed_norms

from .recover_patches import Patches, composites
from .recover_views import RecoverViews

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

    taught = True
    in_pieces = True
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
        for name, value in (("lr_img", lr_img), ("statistics", statistics), ("first_layer", first_layer)):
            if not 0 <= value < math.inf:
                raise ValueError(f"method.{name}={value}: wanted a number >= 0")
        self.variable, self.init, self.iterations = variable, init, iterations
        self.lr_img, self.betas, self.statistics, self.first_layer = lr_img, betas, statistics, first_layer
        self.classes, self.schedule, self.citation = classes, teachers, citation
        self.views = parse(RecoverViews, views, "method.views")
        self.patches = parse(Patches, patches, "method.patches")

    def unsupported(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().unsupported(real, ipc, architecture):
            return reason
        if real.preprocess.kind != "normalise":
            return "pixels are clamped channel by channel, which whitening mixes. Use dataset.preprocess=normalise"
        if self.variable == "compensator" and self.classes not in (None, real.num_classes):
            return (
                f"a compensator is shared by all {real.num_classes} classes, and method.classes={self.classes} puts "
                "fewer into a batch, which would make several of them and break the budget. Use method.classes=null"
            )
        if self.init != "patches":
            return None if self.init == "noise" else too_few_images(real, ipc, ipc, self.init)
        cells = ipc * self.patches.factor**2
        if reason := too_few_images(real, ipc, cells):
            return reason
        if cells > self.patches.images:
            return (
                f"ipc={ipc} is {cells} patches a class, cut from method.patches.images={self.patches.images}. "
                f"Use method.patches.images={cells} or more"
            )
        return None

    def unteachable(self, real: RealSet, ipc: int, teachers: Sequence[TeacherSpec]) -> str | None:
        """See `Method`."""
        if not teachers:
            return "it follows a teacher, and the run has none. Use teacher=convnet_bn"
        if self.variable == "compensator" and self.natural_sets(ipc, real.num_classes, len(teachers)) == 0:
            c, m = real.num_classes, len(teachers)
            return (
                f"ipc={ipc} of {c} classes is {ipc * c} images, and one natural image of each class with a "
                f"compensator of each of {m} teachers is {c + m}. Use ipc={-(-(c + m) // c)} or more"
            )
        if self.iterations == 0 or not self.statistics:
            return None
        for spec in teachers:
            if spec.config.weights == "squeeze" and not executed_norms(
                spec.architecture.fresh(0, torch.device("cpu")), real.shape
            ):
                return (
                    f"teacher {spec.name} ({spec.architecture.title}) has no BatchNorm layer, whose running statistics "
                    f"are matched. Use teachers.{spec.name}.model.norm=batchnorm, or teacher=convnet_bn"
                )
        return None

    @staticmethod
    def natural_sets(ipc: int, num_classes: int, teachers: int) -> int:
        """Returns K: natural sets that leave room for a compensator of each teacher, K (C + M) <= ipc C."""
        return ipc * num_classes // (num_classes + teachers)

    def prepare(self, real: RealSet, ctx: Context) -> None:
        """Trains the teachers."""
        ctx.teachers_of(real)

    def distill(self, real: RealSet, ipc: int, ctx: Context) -> SyntheticSet:
        """See `Method`."""
        teachers = [Tapped(teacher) if self.iterations else teacher for teacher in ctx.teachers_of(real)]
        if self.variable == "compensator":
            return self._compensated(real, ipc, teachers, ctx)
        start = self._start(real, ipc, ctx)  # (k, ipc, c, h, w)
        chunks = torch.arange(real.num_classes).split(self.classes or real.num_classes)
        units = {
            f"slot{slot}-classes{int(chunk[0])}to{int(chunk[-1])}": partial(
                self._images, real, teachers, chunk.to(ctx.device), start, slot
            )
            for slot in range(ipc)
            for chunk in chunks
        }
        pieces = ctx.pieces(units)
        pixels = torch.cat([pieces[name]["pixels"] for name in units])  # slot-major
        classes = torch.arange(real.num_classes).repeat(ipc)
        order = classes.argsort(stable=True)
        return ImageSet.of(real, pixels[order], classes[order], "pixel")

    def _start(self, real: RealSet, ipc: int, ctx: Context) -> Callable[[int, Tensor], Tensor]:
        """Returns what gives the first images of a slot and of classes `(b,)`: inputs `(b, c, h, w)`."""
        if self.init == "noise":
            name = "noise"
            return lambda slot, chunk: torch.randn(
                (len(chunk), *real.shape),
                generator=ctx.generator(name, slot, int(chunk[0])),
                device=ctx.device,
            )
        if self.init == "real":
            index = real.train.draw(ipc, ctx.generator("init"))  # (k, ipc)
            return lambda slot, chunk: real.train.inputs(index[chunk, slot])
        observer = ctx.teachers_of(real)[0]
        builds = {
            f"patches{c}": partial(composites, real, ipc, c, observer, self.patches)
            for c in range(real.num_classes)
        }
        made = ctx.pieces(builds)
        pixels = torch.stack([made[name]["pixels"] for name in builds]).to(
            ctx.device
        )  # (k, ipc, c, h, w) uint8
        return lambda slot, chunk: real.preprocess(pixels[chunk, slot].float() / 255)

    def _images(
        self,
        real: RealSet,
        teachers: Sequence[Any],
        chunk: Tensor,
        start: Callable[[int, Tensor], Tensor],
        slot: int,
        ctx: Context,
    ) -> Piece:
        x = start(slot, chunk).clone()
        self._optimise(x, lambda: x, real, teachers, chunk, f"slot{slot}-{int(chunk[0])}", True, ctx)
        pixels = real.preprocess.inverse(x).clamp(0, 1)
        return {"pixels": (pixels * 255).round().to(torch.uint8)}

    def _compensated(self, real: RealSet, ipc: int, teachers: Sequence[Any], ctx: Context) -> CompensatedSet:
        k = self.natural_sets(ipc, real.num_classes, len(teachers))
        index = real.train.draw(k, ctx.generator("init")).T.contiguous()  # (K, C): a natural set a row
        units = {
            f"set{i}-teacher{j}": partial(self._compensator, real, teacher, index[i], f"set{i}-teacher{j}")
            for i in range(k)
            for j, teacher in enumerate(teachers)
        }
        pieces = ctx.pieces(units)
        compensators = torch.stack([pieces[name]["compensator"] for name in units])  # (K M, c, h, w)
        return CompensatedSet.of(real, index.flatten(), compensators.unflatten(0, (k, len(teachers))))

    def _compensator(self, real: RealSet, teacher: Any, index: Tensor, name: str, ctx: Context) -> Piece:
        natural, u = real.train.inputs(index), torch.zeros(1, *real.shape, device=ctx.device)
        classes = real.train.labels[index]
        self._optimise(u, lambda: natural + u, real, [teacher], classes, name, False, ctx)
        return {"compensator": u[0].half()}

    def _optimise(
        self,
        variable: Tensor,
        batch: Callable[[], Tensor],
        real: RealSet,
        teachers: Sequence[Any],
        y: Tensor,
        name: str,
        clamp: bool,
        ctx: Context,
    ) -> None:
        """Moves `variable` in place, of which `batch()` makes the images of the classes `y (b,)`."""
        if self.iterations == 0:
            return
        optimizer = torch.optim.Adam([variable.requires_grad_()], self.lr_img, self.betas)
        black, white = (
            real.preprocess(torch.full((1, *real.shape), v, device=ctx.device)) for v in (0.0, 1.0)
        )
        multipliers = [torch.ones(len(t.teacher.norms), device=ctx.device) for t in teachers]
        for m in multipliers:
            m[0] = self.first_layer
        loss_of = self._loss(len(y), real.shape, ctx)
        for step in ctx.steps(self.iterations, {"variable": variable, "optimizer": optimizer}, name):
            for group in optimizer.param_groups:
                group["lr"] = 0.5 * self.lr_img * (1 + math.cos(math.pi * step / self.iterations))
            view = self.views.draw(
                step, self.iterations, real.shape, real.flip, ctx.stream(name, "view", step).host
            )
            which = step % len(teachers)
            loss, statistics = loss_of(teachers[which], view(batch()), y, multipliers[which])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if clamp:
                with torch.no_grad():
                    variable.copy_(torch.minimum(torch.maximum(variable, black), white))
            ctx.log(loss=loss, statistics=statistics)
        variable.requires_grad_(False)

    def _loss(
        self, b: int, shape: tuple[int, int, int], ctx: Context
    ) -> Callable[..., tuple[Tensor, Tensor]]:
        loss = partial(recover_loss, weight=self.statistics, autocast=ctx.runtime.autocast)
        if not repays_compilation(self.iterations * b, shape, ctx.runtime):
            return loss
        fast: Callable[..., tuple[Tensor, Tensor]] = torch.compile(loss, dynamic=False)
        return fast


def recover_loss(
    teacher: Tapped, x: Tensor, y: Tensor, multipliers: Tensor, *, weight: float, autocast: bool
) -> tuple[Tensor, Tensor]:
    """Returns the loss of a batch `(b, c, h, w)` of the classes `y (b,)`, and its distance from the statistics; 0-d."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
        logits, distances = teacher(x)
    statistics = (multipliers * distances).sum()
    return F.cross_entropy(logits, y) + weight * statistics, statistics
