"""Alignment of the gradient of a set with the gradient of real images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dd_bench.api import Inputs, classification_loss


def mean_gradient(net: nn.Module, images: Inputs, labels: Tensor, size: int) -> Tensor:
    """Return the gradient of the mean cross-entropy of all images with respect to the parameters, `(p,)`.

    The network is in eval mode, so that dropout and batch statistics do not change the gradient.

    Args:
        net: a network with p parameters; its mode is restored.
        images: inputs `(n, c, h, w)`.
        labels: hard `(n,)` or soft `(n, k)`.
        size: number of images in one forward pass.
    """
    training, n = net.training, len(labels)
    net.eval()
    parameters = [p for p in net.parameters() if p.requires_grad]
    total = torch.zeros(sum(p.numel() for p in parameters), device=labels.device)
    for index in torch.arange(n, device=labels.device).split(size):
        loss = classification_loss(net(images[index]), labels[index]) * (len(index) / n)
        total += torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
    net.train(training)
    return total


def alignment(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine of two gradients `(p,)`, 0-d in [-1, 1]; 0 if one of them is 0."""
    a, b = a.double(), b.double()
    product = a.norm() * b.norm()
    return torch.where(product > 0, (a @ b / product).clamp(-1, 1), 0.0)


def measured_epochs(points: int, epochs: int) -> list[int]:
    """Return up to `points` epochs of a training: 0, 1 and `epochs`, and others with equal ratios between them."""
    steps = max(1, points - 2)
    found = {0, *(round(epochs ** (i / steps)) for i in range(steps + 1)), epochs}
    return sorted(found)
