"""SRe2L: recover images from a frozen teacher and its BatchNorm statistics (Yin et al., NeurIPS 2023)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import (
    Architecture,
    DistillContext,
    ImageSet,
    RealSet,
    Shard,
    Teacher,
    check_class_sizes,
    parse,
)

from ._recovery.base import Recovery
from ._recovery.engine import Engine
from ._recovery.patches import Patches, composites

Start = Callable[[int, range], Tensor]
INITS = ("noise", "real", "patches")
TEACHERS = ("first", "cycle")


class SRe2L(Recovery):
    """For each slot and each chunk of classes, optimise images `x`, one per class `y`, under a frozen teacher `f`.

    There are `ipc` slots; a slot contains one image of each class.

        x ~ N(0, 1)
        for step in range(iterations):
            loss = CE(f(A(x)), y) + statistics * sum_l m_l (|var_l - running_var_l| + |mean_l - running_mean_l|)
            x = clamp(x - Adam(grad loss)), with a cosine learning rate from lr_img to zero

    `A` is one crop, flip and roll for the whole batch. `var_l` and `mean_l` are the statistics of the input of
    BatchNorm layer `l`. `m_l` is `first_layer` for the first layer and 1 for the others. The last iterate is stored.
    The random numbers of a slot and a chunk depend only on their names and the run's seed. The result therefore does
    not depend on which process computes them, or when.

    Deviations from the released code: Images are stored as 8-bit pixels instead of JPEG, and rounded to the nearest
    value. The released code rounds down, which darkens images by half a step on average. BatchNorm layers that the
    forward pass does not use are ignored. The total-variation and L2 priors, which are zero in every released script,
    are not available.
    """

    citation = (
        "Yin et al., Squeeze, Recover and Relabel: Dataset Condensation at ImageNet Scale From A New Perspective, "
        "NeurIPS 2023"
    )
    smoke: ClassVar[dict[str, Any]] = {**Recovery.smoke, "patches.images": 4, "patches.crops": 2}

    def __init__(
        self, *, init: str, classes: int | None, teachers: str, patches: dict[str, Any], **kwargs: Any
    ):
        """See `conf/method/sre2l.yaml` for the arguments; `kwargs` are those of `Recovery`.

        Raises:
            ValueError: A value is unknown or out of range.
        """
        for name, choice, choices in (("init", init, INITS), ("teachers", teachers, TEACHERS)):
            if choice not in choices:
                raise ValueError(f"method.{name} must be one of {', '.join(choices)}, got {choice!r}")
        if classes is not None and classes < 1:
            raise ValueError(
                f"method.classes must be >= 1, or null for all classes in one batch, got {classes}. "
                "Example: method.classes=100"
            )
        super().__init__(**kwargs)
        self.init, self.classes, self.teachers = init, classes, teachers
        self.patches = parse(Patches, patches, "method.patches")

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture):
            return reason
        if self.init == "patches":
            return self.patches.check(real, ipc)
        return check_class_sizes(real, ipc, ipc, self.init) if self.init == "real" else None

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> ImageSet:
        """See `Method`."""
        teachers = ctx.teachers_of(real)
        guides = teachers if self.teachers == "cycle" else teachers[:1]
        engine = self.engine(real, guides, ipc * real.num_classes, ctx)
        start = self._start(real, ipc, teachers[0], ctx)
        size = self.classes or real.num_classes
        units = {
            f"slot{slot}-class{first}": partial(
                self._recover, engine, start, slot, range(first, min(first + size, real.num_classes))
            )
            for slot in range(ipc)
            for first in range(0, real.num_classes, size)
        }
        shards = ctx.shards(units)
        pixels = torch.cat([shards[name]["pixels"] for name in units])  # sorted by slot, then by class
        classes = torch.arange(real.num_classes).repeat(ipc)
        order = classes.argsort(stable=True)
        return ImageSet.of(real, pixels[order], classes[order], "pixel")

    def _recover(self, engine: Engine, start: Start, slot: int, chunk: range, ctx: DistillContext) -> Shard:
        """Return the images of a slot and a chunk of b classes as `pixels`, uint8 `(b, c, h, w)`."""
        x = start(slot, chunk).clone()
        y = torch.arange(chunk.start, chunk.stop, device=ctx.device)
        engine.optimise(x, lambda: x, y, f"slot{slot}-class{chunk.start}", ctx, clamped=True)
        pixels = engine.real.preprocess.inverse(x).clamp(0, 1)
        return {"pixels": (pixels * 255).round().to(torch.uint8)}

    def _start(self, real: RealSet, ipc: int, observer: Teacher, ctx: DistillContext) -> Start:
        """Return a function that maps a slot and b classes to their initial images `(b, c, h, w)`."""
        if self.init == "noise":

            def noise(slot: int, chunk: range) -> Tensor:
                generator = ctx.generator("noise", slot, chunk.start)
                return torch.randn((len(chunk), *real.shape), generator=generator, device=ctx.device)

            return noise
        if self.init == "real":
            index = real.train.draw(ipc, ctx.generator("init"))  # (k, ipc)
            return lambda slot, chunk: real.train.inputs(index[chunk.start : chunk.stop, slot])
        pixels = composites(real, ipc, observer, self.patches, ctx).to(ctx.device)  # (k, ipc, c, h, w)
        return lambda slot, chunk: real.preprocess(pixels[chunk.start : chunk.stop, slot].float() / 255)
