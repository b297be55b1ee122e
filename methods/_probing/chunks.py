"""Gradients through a backbone in parts, for batches whose activations do not fit into memory at once."""

from __future__ import annotations

import torch
from torch import Tensor

from dd_bench.api import Backbone


def feature_gradients(backbone: Backbone, inputs: Tensor, gradient: Tensor, size: int) -> Tensor:
    """Return the gradient of a loss in the inputs of a backbone, `size` images at a time.

    The result equals that of one backward pass, because a frozen backbone treats images independently. Each image
    passes through the backbone a second time.

    Args:
        backbone: the frozen network.
        inputs: `(n, c, h, w)`, without a graph.
        gradient: of the loss in the features, `(n, d)`.
        size: images per pass.
    """
    parts = []
    for x, g in zip(inputs.split(size), gradient.split(size), strict=True):
        x = x.detach().requires_grad_()
        parts += torch.autograd.grad(backbone.features(x), x, g)
    return torch.cat(parts)
