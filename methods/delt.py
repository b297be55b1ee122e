"""DELT: recovery whose images start from ranked real images, at different times (Shen et al., CVPR 2025)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from dd_bench.api import DistillContext, ImageSet, RealSet

from ._arguments import check_at_least
from ._recovery.base import ImageRecovery, recovered
from ._recovery.layout import Unit
from ._recovery.rounds import Rounds, group_sizes


class DELT(ImageRecovery):
    """Optimise all images of some classes in one batch, which each group of images enters in another round.

        x = real images of each class, from the median of p(class | image) outwards, dealt to groups in this order
        for step in range(iterations):
            active = the images of group 0 ... (rounds step // iterations)
            loss = CE(f(A(active)), y) + statistics * sum_l m_l (|var_l - running_var_l| + |mean_l - running_mean_l|)
            active = clamp(active - Adam(grad loss)), with a cosine learning rate from lr_img to zero

    The learning rate and the curriculum of crops are those of the step, not of the image: an image that enters late
    takes few and small steps on small crops, and stays close to the real image. So an image takes part in
    (rounds + 1) / (2 rounds) of the iterations on average, 56 % with 8 rounds. `A` and `m_l` are those of `SRe2L`, with
    CDA's curriculum and without a roll. With fewer images of a class than rounds, the last rounds add none.

    Deviations from the released code: Images are ranked with the dataset's normalisation instead of ImageNet's, and
    stored as 8-bit pixels, rounded to the nearest value, instead of JPEG. As there, one Adam is used for all images, so
    the bias correction of an image that enters late is that of a later step.
    """

    citation = (
        "Shen et al., DELT: A Simple Diversity-driven EarlyLate Training for Dataset Distillation, CVPR 2025"
    )
    smoke: ClassVar[dict[str, Any]] = {**ImageRecovery.smoke, "rounds": 2}

    def __init__(self, *, rounds: int, **kwargs: Any):
        """See `conf/method/delt.yaml` for the arguments; `kwargs` are those of `ImageRecovery`.

        Raises:
            ValueError: A value is unknown or out of range.
        """
        check_at_least(1, rounds=rounds)
        super().__init__(**kwargs)
        if rounds > 1 and self.layout == "slot":
            raise ValueError(
                f"method.rounds={rounds} requires method.layout=class, because with layout=slot a batch has only one "
                "image of each class. Use method.layout=class or method.rounds=1"
            )
        if 0 < self.iterations < rounds:
            raise ValueError(
                f"method.iterations must be >= method.rounds={rounds}, got {self.iterations}. "
                f"Example: method.rounds={self.iterations}"
            )
        self.rounds = rounds

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> ImageSet:
        """See `Method`."""
        teacher = ctx.teachers_of(real)[0]
        shapes = len([size for size in group_sizes(ipc, self.rounds) if size])
        loss = self.in_turn(real, [teacher], ipc * real.num_classes, ctx, shapes)
        engine, start = self.engine(real), self.start(real, ipc, teacher, ctx)

        def recover(unit: Unit, ctx: DistillContext) -> Tensor:
            x, y = start(unit).clone(), unit.labels(ctx.device)
            images = Rounds(x, y, len(unit.classes), self.rounds, self.iterations)
            return engine.optimise(images, loss, unit.name, ctx)

        return recovered(real, ipc, self.units(real, ipc), recover, ctx)
