r"""Differentiable inner loops: differentiate the result of a student's training with respect to its training images.

A student takes N steps `theta_{i+1} = theta_i - lr b_{i+1}`, `b_{i+1} = m b_i + g_i`, where g_i is the gradient of
its loss on a view of a batch. The objective L is the sum over targets of
`weight |theta_after - target|^2 / |theta_0 - target|^2`. It is differentiated with respect to images, labels and lr.

- `unroll`: automatic differentiation through all steps. It stores the graph of every step, so memory grows with N.
- `adjoint`: the same gradient up to rounding, with the graph of one step at a time. The forward pass stores only the
  parameter vectors (with momentum also the velocities). The backward pass recomputes each step and its pullback
  (vector-Jacobian product). With `lambda_i = dL/dtheta_i`, `nu_i = dL/dg_i` and `D = |theta_0 - target|^2`, from
  i = N-1 down to 0:

      lambda += 2 weight (theta_{i+1} - target) / D          at the targets after step i + 1
      dL/dlr -= <b_{i+1}, lambda>;   nu = m nu - lr lambda
      (H nu, dx, dy) = pullback of nu through g_i at (theta_i, x_i, y_i)
      dL/dx += dx;   dL/dy += dy;   lambda += H nu

- `truncated`: omits `lambda += H nu`, as if the gradient g_i did not depend on the weights theta_i of earlier steps.
  This is the published constant-memory gradient of TESLA (Cui et al., ICML 2023, equation 11). The paper calls it
  exact, which is true only for N = 1. In `benchmarks/exactness.py`, its cosine similarity with the exact gradient of
  the images is 0.81 to 0.97.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps `(theta (p,), inputs (b, c, h, w), labels)` to a 0-d loss."""
View = Callable[[Tensor], Tensor]
"""A differentiable, deterministic map from a batch of images to the inputs of the student."""


@dataclass(frozen=True)
class InnerStep:
    """One step of the student: the indices `(b,)` of its batch, and the view of the batch."""

    index: Tensor
    view: View


@dataclass(frozen=True)
class EpochTarget:
    """Target parameters `(p,)` of the student after `after` steps, and the weight of their distance."""

    after: int
    parameters: Tensor
    weight: float = 1.0


@dataclass(frozen=True)
class InnerLoop:
    """The training of a student.

    Attributes:
        differentiator: computes the derivatives of the student's loss.
        start: theta_0, `(p,)`.
        steps: the N steps.
        targets: the targets; each `after` is in 1..N.
        momentum: m in [0, 1).
        weight: factor of the student's loss.
    """

    differentiator: Differentiator
    start: Tensor
    steps: Sequence[InnerStep]
    targets: Sequence[EpochTarget]
    momentum: float = 0.0
    weight: float = 1.0

    def distances(self) -> list[Tensor]:
        """Return `|theta_0 - target|^2` for each target, 0-d; these are constants in the objective."""
        return [(self.start - t.parameters).square().sum() for t in self.targets]


class Gradients(NamedTuple):
    """The objective and its derivatives; `labels` is None if labels are not learned."""

    loss: Tensor
    images: Tensor
    labels: Tensor | None
    lr: Tensor


class Differentiator(ABC):
    """The gradient of a student's loss with respect to its parameters, and the pullback of this gradient."""

    def __init__(self, loss: Loss, learn_labels: bool):
        """Take the loss; with `learn_labels`, derivatives with respect to the labels `(n, k)` are computed too."""
        self.loss, self.learn_labels = loss, learn_labels

    @abstractmethod
    def gradient(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return `g = dloss/dtheta (p,)` without a graph."""

    @abstractmethod
    def pullback(self, theta: Tensor, x: Tensor, y: Tensor, nu: Tensor) -> tuple[Tensor, ...]:
        """Return g and the derivatives of `<g, nu>` with respect to theta, x and, with `learn_labels`, y."""


class EagerDifferentiator(Differentiator):
    """Derivatives by double backward."""

    def gradient(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """See `Differentiator`."""
        theta = theta.detach().requires_grad_()
        return torch.autograd.grad(self.loss(theta, x, y), theta)[0]

    def pullback(self, theta: Tensor, x: Tensor, y: Tensor, nu: Tensor) -> tuple[Tensor, ...]:
        """See `Differentiator`; one backward call computes all derivatives."""
        theta, x = theta.detach().requires_grad_(), x.detach().requires_grad_()
        y = y.detach().requires_grad_(self.learn_labels)
        inputs = (theta, x, y) if self.learn_labels else (theta, x)
        (g,) = torch.autograd.grad(self.loss(theta, x, y), theta, create_graph=True)
        return g.detach(), *torch.autograd.grad(g, inputs, nu)


class CompiledDifferentiator(Differentiator):
    """Like `EagerDifferentiator`, but compiled.

    It uses `torch.func`, as `torch.compile` does not support double backward. Shapes must not change between steps.
    """

    def __init__(self, loss: Loss, learn_labels: bool):
        """See `Differentiator`."""
        super().__init__(loss, learn_labels)
        gradient: Callable[..., Tensor] = torch.func.grad(loss)

        def pullback(theta: Tensor, x: Tensor, y: Tensor, nu: Tensor) -> tuple[Tensor, ...]:
            inputs = (theta, x, y) if learn_labels else (theta, x)
            result: Any = torch.func.vjp(
                lambda *i: gradient(*i) if learn_labels else gradient(*i, y), *inputs
            )
            g, vjp = result
            return g, *vjp(nu)

        self._gradient = torch.compile(gradient, dynamic=False)
        self._pullback = torch.compile(pullback, dynamic=False)

    def gradient(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """See `Differentiator`."""
        with torch.no_grad():
            g: Tensor = self._gradient(theta, x, y)
            return g

    def pullback(self, theta: Tensor, x: Tensor, y: Tensor, nu: Tensor) -> tuple[Tensor, ...]:
        """See `Differentiator`."""
        with torch.no_grad():
            result: tuple[Tensor, ...] = self._pullback(theta, x, y, nu)
            return result


def unroll(inner: InnerLoop, images: Tensor, labels: Tensor, lr: Tensor) -> Gradients:
    """Return the objective and its derivatives, by automatic differentiation through all steps.

    Args:
        inner: the training of the student.
        images: `(n, c, h, w)`.
        labels: labels for the loss, one row per image.
        lr: learning rate of the student, 0-d.
    """
    learn = inner.differentiator.learn_labels
    images, lr = images.detach().requires_grad_(), lr.detach().requires_grad_()
    labels = labels.detach().requires_grad_(learn)
    theta = inner.start.detach().requires_grad_()
    velocity = torch.zeros_like(theta)
    loss = torch.zeros((), dtype=theta.dtype, device=theta.device)
    distances = inner.distances()
    for i, step in enumerate(inner.steps):
        value = inner.weight * inner.differentiator.loss(
            theta, step.view(images[step.index]), labels[step.index]
        )
        velocity = inner.momentum * velocity + torch.autograd.grad(value, theta, create_graph=True)[0]
        theta = theta - lr * velocity
        for target, distance in zip(inner.targets, distances, strict=True):
            if target.after == i + 1:
                loss = loss + target.weight * (theta - target.parameters).square().sum() / distance
    gradients = torch.autograd.grad(loss, [images, lr, labels] if learn else [images, lr])
    return Gradients(loss.detach(), gradients[0], gradients[2] if learn else None, gradients[1])


def adjoint(inner: InnerLoop, images: Tensor, labels: Tensor, lr: Tensor) -> Gradients:
    """Like `unroll`, but stores the graph of only one step at a time."""
    return _two_passes(inner, images, labels, lr, exact=True)


def truncated(inner: InnerLoop, images: Tensor, labels: Tensor, lr: Tensor) -> Gradients:
    """Like `adjoint`, but with an approximate gradient that omits `lambda += H nu`."""
    return _two_passes(inner, images, labels, lr, exact=False)


GRADIENTS: dict[str, Callable[[InnerLoop, Tensor, Tensor, Tensor], Gradients]] = {
    "adjoint": adjoint,
    "unroll": unroll,
    "truncated": truncated,
}


def _two_passes(inner: InnerLoop, images: Tensor, labels: Tensor, lr: Tensor, exact: bool) -> Gradients:
    images, labels, lr = images.detach(), labels.detach(), lr.detach()
    thetas, velocities = _trajectory(inner, images, labels, lr)
    distances = inner.distances()
    loss = torch.zeros((), dtype=lr.dtype, device=lr.device)
    d_images, d_lr = torch.zeros_like(images), torch.zeros_like(lr)
    d_labels = torch.zeros_like(labels) if inner.differentiator.learn_labels else None
    lam, nu = torch.zeros_like(inner.start), torch.zeros_like(inner.start)
    for i in reversed(range(len(inner.steps))):
        step = inner.steps[i]
        for target, distance in zip(inner.targets, distances, strict=True):
            if target.after == i + 1:
                difference = thetas[i + 1] - target.parameters
                loss += target.weight * difference.square().sum() / distance
                lam = lam + (2 * target.weight / distance) * difference
        nu = inner.momentum * nu - lr * lam
        batch = images[step.index].requires_grad_()
        view = step.view(batch)
        g, h_nu, d_view, *d_batch_labels = inner.differentiator.pullback(
            thetas[i], view.detach(), labels[step.index], inner.weight * nu
        )
        d_lr -= (velocities[i] if inner.momentum else inner.weight * g).dot(lam)
        d_batch = d_view if view is batch else torch.autograd.grad(view, batch, d_view)[0]
        d_images.index_add_(0, step.index, d_batch)
        if d_labels is not None:
            d_labels.index_add_(0, step.index, d_batch_labels[0])
        if exact:
            lam = lam + h_nu
    return Gradients(loss, d_images, d_labels, d_lr)


def _trajectory(
    inner: InnerLoop, images: Tensor, labels: Tensor, lr: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Train the student without a graph, and return theta_0..theta_N, and b_1..b_N (an empty list without momentum)."""
    thetas, velocities = [inner.start.detach()], list[Tensor]()
    velocity = torch.zeros_like(inner.start)
    for step in inner.steps:
        with torch.no_grad():
            view = step.view(images[step.index])
        g = inner.weight * inner.differentiator.gradient(thetas[-1], view, labels[step.index])
        velocity = inner.momentum * velocity + g
        if inner.momentum:
            velocities.append(velocity)
        thetas.append(thetas[-1] - lr * velocity)
    return thetas, velocities
