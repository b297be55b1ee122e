"""Base classes of methods whose sets are made for linear heads on a frozen backbone, the run's only teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import (
    Backbone,
    DistillContext,
    ImageSet,
    Method,
    RealSet,
    TeacherSpec,
    check_backbone,
    class_labels,
    parse,
)
from dd_bench.methods._arguments import check_at_least

from .chunks import feature_gradients
from .pyramid import Pyramid
from .views import ProbeViews


class Probing(Method):
    """Base class of methods that use the features of the run's only teacher."""

    uses_teachers = True

    def check_teachers(self, real: RealSet, ipc: int, teachers: Sequence[TeacherSpec]) -> str | None:
        """See `Method`."""
        return check_backbone(teachers)

    def prepare(self, real: RealSet, ctx: DistillContext) -> None:
        """Train the backbone."""
        ctx.backbone_of(real)


class PyramidMethod(Probing):
    """Base class of methods that optimise pyramid images by a loss of the features of their augmented views."""

    smoke: ClassVar[dict[str, Any]] = {"iterations": 3, "level_every": 1}

    def __init__(
        self,
        *,
        iterations: int,
        lr_img: float,
        level_every: int,
        repeats: int,
        views: dict[str, Any],
        chunk: int | None,
    ):
        """See `conf/method/lgm.yaml` for the arguments.

        Raises:
            ValueError: A value is out of range.
        """
        check_at_least(1, level_every=level_every, repeats=repeats, chunk=chunk)
        self.iterations, self.lr_img, self.level_every = iterations, lr_img, level_every
        self.repeats, self.chunk = repeats, chunk
        self.views = parse(ProbeViews, views, "method.views")

    def pyramid(self, real: RealSet, ipc: int, ctx: DistillContext) -> Pyramid:
        """Return the images of the set, which are in the order of their classes."""
        return Pyramid(real, ipc * real.num_classes, self.level_every, self.lr_img, ctx)

    def synthetic_features(
        self, pyramid: Pyramid, real: RealSet, backbone: Backbone, ctx: DistillContext, step: int
    ) -> tuple[Tensor, Tensor]:
        """Return the features `(repeats * n, d)` of new views of all images, and the inputs of the backbone.

        With `chunk`, the features are a leaf without a graph. `update` takes both.
        """
        images = pyramid.images().repeat(self.repeats, 1, 1, 1)
        views = self.views.apply(images, real, ctx.generator("views", step))
        inputs = real.preprocess(views)
        if self.chunk is None:
            return backbone.features(inputs), inputs
        return backbone.features_of(inputs.detach()).requires_grad_(), inputs

    def steps(self, pyramid: Pyramid, real: RealSet, ipc: int, ctx: DistillContext) -> Iterator[int]:
        """Yield the steps. At the start of a step, the pyramid gets the levels that are due."""

        def distilled() -> ImageSet:
            return self.stored(pyramid, real, ipc, ctx)

        for step in ctx.steps(self.iterations, pyramid.state, preview=distilled):
            pyramid.grow(step)
            yield step
        pyramid.count = pyramid.levels_at(self.iterations - 1)  # a run that was resumed after its last step

    def update(
        self,
        loss: Tensor,
        z: Tensor,
        inputs: Tensor,
        pyramid: Pyramid,
        backbone: Backbone,
        ctx: DistillContext,
    ) -> None:
        """Take a step of Adam on the images by the gradient of `loss`, which depends on the features `z`."""
        pyramid.optimizer.zero_grad(set_to_none=True)
        if self.chunk is None:
            loss.backward()
        else:
            (gradient,) = torch.autograd.grad(loss, z)
            inputs.backward(feature_gradients(backbone, inputs.detach(), gradient, self.chunk))
        pyramid.optimizer.step()
        ctx.log(loss=loss)

    @staticmethod
    def stored(pyramid: Pyramid, real: RealSet, ipc: int, ctx: DistillContext) -> ImageSet:
        """Return the set: the images with 8 bits."""
        pixels = (pyramid.images().detach() * 255).round().to(torch.uint8)
        return ImageSet.of(real, pixels, class_labels(real, ipc, ctx.device), "pixel")
