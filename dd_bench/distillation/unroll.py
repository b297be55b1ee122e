r"""Differentiable inner loops: how the end of a student's training depends on the images it was trained on.

A student takes N steps `theta_{i+1} = theta_i - lr b_{i+1}`, `b_{i+1} = m b_i + g_i`, where g_i is the gradient of
its loss on a view of a batch. The objective is the sum over targets of
`weight |theta_after - target|^2 / |theta_0 - target|^2`; it is differentiated in images, labels and lr.

- `unroll`: automatic differentiation through all steps. Keeps every step's graph, so memory grows with N.
- `adjoint`: the same gradient, exact to rounding, with the graph of one step at a time. The forward run keeps only
  the N parameter vectors; the backward run recomputes a step and pulls back through it. With
  `lambda_i = dL/dtheta_i` and `nu_i = dL/dg_i`, going down from i = N-1:

      lambda += 2 weight (theta_{i+1} - target) / D          at the targets after step i + 1
      dL/dlr -= <b_{i+1}, lambda>;   nu = m nu - lr lambda
      (H nu, dx, dy) = pullback of nu through g_i at (theta_i, x_i, y_i)
      dL/dx += dx;   dL/dy += dy;   lambda += H nu

- `truncated`: leaves out `lambda += H nu`, as if a step's gradient did not depend on the weights that earlier steps
  made. It is the published constant-memory gradient of TESLA (Cui et al., ICML 2023, equation 11). The paper calls it
  exact; that holds for N = 1 only. `benchmarks/exactness.py` measures how far off it is: cosines of 0.81
  to 0.97 with the exact gradient of the images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(theta (p,), inputs (b, c, h, w), labels) -> ` 0-d."""
View = Callable[[Tensor], Tensor]
"""A differentiable map of a batch of images to what the student sees; the same whenever it is called."""


@dataclass(frozen=True)
class InnerStep:
    """One step of the student: the images `index (b,)` it takes, and how it sees them."""

    index: Tensor
    view: View


@dataclass(frozen=True)
class EpochTarget:
    """Where the student should be after so many steps: parameters `(p,)`, and the weight of the distance."""

    after: int
    parameters: Tensor
    weight: float = 1.0


@dataclass(frozen=True)
class InnerLoop:
    """A student's training.

    Attributes:
        calculus: how derivatives of the student's loss are computed.
        start: theta_0, `(p,)`.
        steps: N of them; each target's `after` is in 1..N.
        momentum: m in [0, 1).
        weight: factor of the student's loss.
    """

    calculus: Differentiator
    start: Tensor
    steps: Sequence[InnerStep]
    targets: Sequence[EpochTarget]
    momentum: float = 0.0
    weight: float = 1.0

    def distances(self) -> list[Tensor]:
        """Return `|theta_0 - target|^2` of each target, 0-d; constants of the objective."""
        return [(self.start - t.parameters).square().sum() for t in self.targets]


class Gradients(NamedTuple):
    """The objective and its derivatives; `labels` is None where they are not learned."""

    loss: Tensor
    images: Tensor
    labels: Tensor | None
    lr: Tensor


class Differentiator(ABC):
    """Derivatives of a student's loss in its parameters, and the pullback through them."""

    def __init__(self, loss: Loss, learn_labels: bool):
        """Takes the loss, and whether labels `(n, k)` are differentiated too."""
        self.loss, self.learn_labels = loss, learn_labels

    @abstractmethod
    def gradient(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return `g = dloss/dtheta (p,)`, without a graph."""

    @abstractmethod
    def pullback(self, theta: Tensor, x: Tensor, y: Tensor, nu: Tensor) -> tuple[Tensor, ...]:
        """Return g, and the derivatives of `<g, nu>` in theta, x and, where they are learned, y."""


class EagerDifferentiator(Differentiator):
    """Automatic differentiation twice."""

    def gradient(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """See `Differentiator`."""
        theta = theta.detach().requires_grad_()
        return torch.autograd.grad(self.loss(theta, x, y), theta)[0]

    def pullback(self, theta: Tensor, x: Tensor, y: Tensor, nu: Tensor) -> tuple[Tensor, ...]:
        """See `Differentiator`; one backward call gives all of them."""
        theta, x = theta.detach().requires_grad_(), x.detach().requires_grad_()
        y = y.detach().requires_grad_(self.learn_labels)
        at = (theta, x, y) if self.learn_labels else (theta, x)
        (g,) = torch.autograd.grad(self.loss(theta, x, y), theta, create_graph=True)
        return g.detach(), *torch.autograd.grad(g, at, nu)


class CompiledDifferentiator(Differentiator):
    """The same through `torch.func`, compiled: the compiler takes no double backward of the other form.

    Shapes must not change between steps.
    """

    def __init__(self, loss: Loss, learn_labels: bool):
        """See `Differentiator`."""
        super().__init__(loss, learn_labels)
        first: Callable[..., Tensor] = torch.func.grad(loss)

        def pullback(theta: Tensor, x: Tensor, y: Tensor, nu: Tensor) -> tuple[Tensor, ...]:
            at = (theta, x, y) if learn_labels else (theta, x)
            pulled: Any = torch.func.vjp(lambda *at: first(*at) if learn_labels else first(*at, y), *at)
            g, pull = pulled
            return g, *pull(nu)

        self._gradient = torch.compile(first, dynamic=False)
        self._pullback = torch.compile(pullback, dynamic=False)

    def gradient(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """See `Differentiator`."""
        with torch.no_grad():
            g: Tensor = self._gradient(theta, x, y)
            return g

    def pullback(self, theta: Tensor, x: Tensor, y: Tensor, nu: Tensor) -> tuple[Tensor, ...]:
        """See `Differentiator`."""
        with torch.no_grad():
            pulled: tuple[Tensor, ...] = self._pullback(theta, x, y, nu)
            return pulled


def unroll(inner: InnerLoop, images: Tensor, labels: Tensor, lr: Tensor) -> Gradients:
    """See the head of this module.

    Args:
        inner: the student's training.
        images: `(n, c, h, w)`.
        labels: what the loss takes, indexed by image.
        lr: 0-d.
    """
    learn = inner.calculus.learn_labels
    images, lr = images.detach().requires_grad_(), lr.detach().requires_grad_()
    labels = labels.detach().requires_grad_(learn)
    theta = inner.start.detach().requires_grad_()
    velocity = torch.zeros_like(theta)
    loss = torch.zeros((), dtype=theta.dtype, device=theta.device)
    distances = inner.distances()
    for i, step in enumerate(inner.steps):
        value = inner.weight * inner.calculus.loss(theta, step.view(images[step.index]), labels[step.index])
        velocity = inner.momentum * velocity + torch.autograd.grad(value, theta, create_graph=True)[0]
        theta = theta - lr * velocity
        for target, distance in zip(inner.targets, distances, strict=True):
            if target.after == i + 1:
                loss = loss + target.weight * (theta - target.parameters).square().sum() / distance
    wanted = [images, lr, labels] if learn else [images, lr]
    found = torch.autograd.grad(loss, wanted)
    return Gradients(loss.detach(), found[0], found[2] if learn else None, found[1])


def adjoint(inner: InnerLoop, images: Tensor, labels: Tensor, lr: Tensor) -> Gradients:
    """The gradient of `unroll` in the memory of one step; see there for the arguments."""
    return _two_passes(inner, images, labels, lr, exact=True)


def truncated(inner: InnerLoop, images: Tensor, labels: Tensor, lr: Tensor) -> Gradients:
    """The loss of `unroll`, and an approximation of its gradient; see there for the arguments."""
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
    d_labels = torch.zeros_like(labels) if inner.calculus.learn_labels else None
    lam, nu = torch.zeros_like(inner.start), torch.zeros_like(inner.start)
    for i in reversed(range(len(inner.steps))):
        step = inner.steps[i]
        for target, distance in zip(inner.targets, distances, strict=True):
            if target.after == i + 1:
                apart = thetas[i + 1] - target.parameters
                loss += target.weight * apart.square().sum() / distance
                lam = lam + (2 * target.weight / distance) * apart
        nu = inner.momentum * nu - lr * lam
        batch = images[step.index].requires_grad_()
        seen = step.view(batch)
        g, h_nu, d_seen, *d_batch_labels = inner.calculus.pullback(
            thetas[i], seen.detach(), labels[step.index], inner.weight * nu
        )
        d_lr -= (velocities[i] if inner.momentum else inner.weight * g).dot(lam)
        d_batch = d_seen if seen is batch else torch.autograd.grad(seen, batch, d_seen)[0]
        d_images.index_add_(0, step.index, d_batch)
        if d_labels is not None:
            d_labels.index_add_(0, step.index, d_batch_labels[0])
        if exact:
            lam = lam + h_nu
    return Gradients(loss, d_images, d_labels, d_lr)


def _trajectory(
    inner: InnerLoop, images: Tensor, labels: Tensor, lr: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Train the student without a graph: theta_0..theta_N, and b_1..b_N, which without momentum are not kept."""
    thetas, velocities = [inner.start.detach()], list[Tensor]()
    velocity = torch.zeros_like(inner.start)
    for step in inner.steps:
        with torch.no_grad():
            seen = step.view(images[step.index])
        g = inner.weight * inner.calculus.gradient(thetas[-1], seen, labels[step.index])
        velocity = inner.momentum * velocity + g
        if inner.momentum:
            velocities.append(velocity)
        thetas.append(thetas[-1] - lr * velocity)
    return thetas, velocities
