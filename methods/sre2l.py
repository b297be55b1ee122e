"""SRe2L: recover images from a frozen teacher and its BatchNorm statistics (Yin et al., NeurIPS 2023)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from dd_bench.api import Architecture, DistillContext, ImageSet, RealSet, parse

from ._recovery.base import Recovery, recovered
from ._recovery.images import Images
from ._recovery.layout import Unit, units_of
from ._recovery.patches import Patches
from ._recovery.start import INITS, TEACHERS, check_start, initial


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
        return check_start(self.init, real, ipc, self.patches, None)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> ImageSet:
        """See `Method`."""
        teachers = ctx.teachers_of(real)
        guides = teachers if self.teachers == "cycle" else teachers[:1]
        loss = self.in_turn(real, guides, ipc * real.num_classes, ctx)
        engine = self.engine(real)
        start = initial(self.init, real, ipc, teachers[0], self.patches, None, ctx)

        def recover(unit: Unit, ctx: DistillContext) -> Tensor:
            images = Images(start(unit).clone(), unit.labels(ctx.device))
            return engine.optimise(images, loss, unit.name, ctx)

        return recovered(real, ipc, units_of("slot", real.num_classes, ipc, self.classes), recover, ctx)
