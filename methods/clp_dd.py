"""CLP-DD: images whose ridge regression on a frozen backbone classifies real images (Peng et al., 2026)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dd_bench.api import (
    Backbone,
    DistillContext,
    ImageSet,
    RealSet,
    class_labels,
    one_hot,
    random_rows,
    ridge_weights,
    unit_rows,
)

from ._arguments import check_at_least
from ._probing.base import PyramidMethod


class CLPDD(PyramidMethod):
    """Each step solves the linear head of the synthetic images exactly, and tests it on real images.

        X: images as in `LGM`
        Z_real = phi(real images), or of real_views views of each, computed once
        for step in range(iterations):
            Z = phi(A(repeats views of each image of X)), rows of unit length; Y = one-hot labels
            W = Z^T (Z Z^T + ridge I)^-1 Y, columns of unit length
            loss = CE(Z_real W / temperature, y_real) on real_images random real images, rows of Z_real of unit length
            P = P - Adam(gradient of the loss)

    `phi` is the run's teacher without its last layer. The gradient passes through the solution of the linear system.

    Deviations from the paper: No code has been released, and only the abstract was read. The ridge solution and the
    cross-entropy with a temperature are from the abstract. The strength of the penalty, the unit lengths, the
    temperature, the images of LGM with its augmentation and rates, and the number of steps are choices of this
    implementation. Images are stored with 8 bits.
    """

    citation = (
        "Peng, Li, Liu, Ogawa and Haseyama, Closed-Form Linear-Probe Dataset Distillation for Pre-trained Vision "
        "Models, arXiv:2605.07194, 2026"
    )

    def __init__(
        self,
        *,
        ridge: float,
        temperature: float,
        real_images: int | None,
        real_views: int | None,
        **kwargs: Any,
    ):
        """See `conf/method/clp_dd.yaml` for the arguments; `kwargs` are those of `PyramidMethod`.

        Raises:
            ValueError: A value is out of range.
        """
        super().__init__(**kwargs)
        check_at_least(1, real_images=real_images, real_views=real_views)
        for name, value in (("ridge", ridge), ("temperature", temperature)):
            if not value > 0:
                raise ValueError(f"method.{name} must be > 0, got {value}. Example: method.{name}=0.1")
        self.ridge, self.temperature = ridge, temperature
        self.real_images, self.real_views = real_images, real_views

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> ImageSet:
        """See `Method`."""
        backbone, pyramid = ctx.backbone_of(real), self.pyramid(real, ipc, ctx)
        y = class_labels(real, ipc, ctx.device).repeat(self.repeats)
        targets = one_hot(y, real.num_classes, torch.float32)
        real_z = self._real_features(real, backbone, ctx)
        real_y = real.train.labels.repeat(self.real_views or 1)
        for step in self.steps(pyramid, real, ipc, ctx):
            index = random_rows(len(real_y), self.real_images, ctx.generator("real", step))
            z, inputs = self.synthetic_features(pyramid, real, backbone, ctx, step)
            loss = probe_loss(real_z[index], real_y[index], z, targets, self.ridge, self.temperature)
            self.update(loss, z, inputs, pyramid, backbone, ctx)
        return self.stored(pyramid, real, ipc, ctx)

    def _real_features(self, real: RealSet, backbone: Backbone, ctx: DistillContext) -> Tensor:
        """Return the features of all real images, or of `real_views` views of each, `(views * n, d)`."""
        if self.real_views is None:
            return backbone.split_features(real.train)
        parts = []
        for view in range(self.real_views):
            generator = ctx.generator("real views", view)
            for index in torch.arange(len(real.train), device=ctx.device).split(backbone.size):
                pixels = self.views.apply(real.train.pixels(index).float() / 255, real, generator)
                parts.append(backbone.features_of(real.preprocess(pixels)))
        return torch.cat(parts)


def probe_loss(
    real_z: Tensor, real_y: Tensor, z: Tensor, targets: Tensor, ridge: float, temperature: float
) -> Tensor:
    """Return the cross-entropy on `(real_z, real_y)` of the ridge head of features `z (n, d)` with `targets (n, k)`."""
    head = F.normalize(ridge_weights(unit_rows(z), targets, ridge), dim=0)
    return F.cross_entropy(unit_rows(real_z) @ head / temperature, real_y)
