"""Closed forms of a linear head on fixed features: ridge regression, and the gradient of the cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def unit_rows(z: Tensor) -> Tensor:
    """Return the rows of features `(n, d)` divided by their length. A row of zeros stays zero."""
    return F.normalize(z, dim=1)


def one_hot(y: Tensor, k: int, dtype: torch.dtype) -> Tensor:
    """Return targets `(n, k)`: soft labels as they are, class labels `(n,)` as unit vectors."""
    return y.to(dtype) if y.ndim == 2 else F.one_hot(y, k).to(dtype)


def ridge_weights(z: Tensor, targets: Tensor, strength: float) -> Tensor:
    """Return the weights `(d, k)` of ridge regression without intercept: `argmin_W |z W - targets|^2 + a |W|^2`.

    The penalty is `a = strength * mean squared length of the rows of z`. The solution `z^T (z z^T + a I)^-1 targets` is
    computed with the smaller one of the matrices `z z^T` and `z^T z`. It is differentiable in `z` and `targets`.

    Args:
        z: features `(n, d)`.
        targets: `(n, k)`.
        strength: relative strength of the penalty, > 0.
    """
    n, d = z.shape
    penalty = strength * z.square().sum(1).mean()
    if n <= d:
        gram = z @ z.T + penalty * torch.eye(n, dtype=z.dtype, device=z.device)
        return z.T @ _solve(gram, targets)
    gram = z.T @ z + penalty * torch.eye(d, dtype=z.dtype, device=z.device)
    return _solve(gram, z.T @ targets)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve a linear system with a positive definite matrix, without waiting for the device to check it."""
    solution: Tensor = torch.linalg.solve_ex(matrix, right)[0]
    return solution


def head_gradient(z: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the gradient of the mean cross-entropy in the weights and the bias of a head, one vector `(k * d + k,)`.

    With the softmax `p (n, k)` of the logits and the one-hot labels `t`, the gradient is `(p - t)^T z / n` for the
    weights and the mean of `p - t` for the bias. It is differentiable in `z`, so that no second derivative of a network
    is needed.

    Args:
        z: features `(n, d)`.
        y: labels `(n,)`.
        weight: `(k, d)`.
        bias: `(k,)`.
    """
    probabilities = F.linear(z, weight, bias).softmax(1)
    residual = (probabilities - one_hot(y, len(weight), z.dtype)) / len(z)
    return torch.cat([(residual.T @ z).flatten(), residual.sum(0)])
