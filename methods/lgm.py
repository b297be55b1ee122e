"""LGM: match the gradients of linear heads on a frozen backbone (Cazenavette et al., NeurIPS 2025)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dd_bench.api import Backbone, DistillContext, ImageSet, RealSet, class_labels, head_gradient, random_rows

from ._probing.base import PyramidMethod


class LGM(PyramidMethod):
    """Each step draws a random linear head and compares its gradient on real and on synthetic images.

        P_1 ~ N(0, 1), images X = sigmoid(2 M sum_r up(P_r)), see `Pyramid`
        for step in range(iterations):
            after every level_every steps: add the next level of the pyramid
            W ~ N(0, head_std^2), b = 0
            Z_real = phi(A(random real images)), Z_syn = phi(A(repeats views of each image of X))
            G = gradient in (W, b) of the mean cross-entropy of the head on Z
            P = P - Adam(gradient of 1 - cos(G_real, G_syn))

    `phi` is the run's teacher without its last layer. `A` crops, flips and adds noise, with other random numbers for
    each image. The real batch has as many images as the synthetic one, but at most all; its classes are not balanced.
    `G` has a closed form, see `head_gradient`, so the loss needs only the first derivative of the backbone.

    Deviations from the released code: It computes `G` by automatic differentiation, and thus second derivatives of the
    backbone; the result is the same. Images are stored with 8 bits. See also `Pyramid`. The paper draws W from N(0, 1),
    the released code and this one with a standard deviation of 0.01.
    """

    citation = (
        "Cazenavette, Torralba and Sitzmann, Dataset Distillation for Pre-Trained Self-Supervised Vision Models, "
        "NeurIPS 2025"
    )

    def __init__(self, *, head_std: float, **kwargs: Any):
        """See `conf/method/lgm.yaml` for the arguments; `kwargs` are those of `PyramidMethod`.

        Raises:
            ValueError: A value is out of range.
        """
        super().__init__(**kwargs)
        if not head_std > 0:
            raise ValueError(f"method.head_std must be > 0, got {head_std}. Example: method.head_std=0.01")
        self.head_std = head_std

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> ImageSet:
        """See `Method`."""
        backbone, pyramid = ctx.backbone_of(real), self.pyramid(real, ipc, ctx)
        y = class_labels(real, ipc, ctx.device).repeat(self.repeats)
        for step in self.steps(pyramid, real, ipc, ctx):
            real_z, real_y = self._real_features(real, len(y), backbone, ctx, step)
            z, inputs = self.synthetic_features(pyramid, real, backbone, ctx, step)
            weight = torch.randn(
                real.num_classes, z.shape[1], generator=ctx.generator("head", step), device=ctx.device
            )
            loss = matching_loss(real_z, real_y, z, y, self.head_std * weight)
            self.update(loss, z, inputs, pyramid, backbone, ctx)
        return self.stored(pyramid, real, ipc, ctx)

    def _real_features(
        self, real: RealSet, n: int, backbone: Backbone, ctx: DistillContext, step: int
    ) -> tuple[Tensor, Tensor]:
        """Return the features of views of up to `n` random real images, and their labels."""
        index = random_rows(len(real.train), n, ctx.generator("real", step))
        pixels = real.train.pixels(index).float() / 255
        views = self.views.apply(pixels, real, ctx.generator("real views", step))
        return backbone.features_of(real.preprocess(views)), real.train.labels[index]


def matching_loss(real_z: Tensor, real_y: Tensor, z: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Return 1 minus the cosine of the gradients of the head `weight (k, d)`, with a bias of zero, on two batches."""
    bias = weight.new_zeros(len(weight))
    target = head_gradient(real_z, real_y, weight, bias)
    return 1 - F.cosine_similarity(head_gradient(z, y, weight, bias), target, dim=0)
