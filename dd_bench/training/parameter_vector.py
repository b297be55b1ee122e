"""A network as a function of one flat parameter vector, for inner loops and expert buffers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from dd_bench.models.network import Network


class FunctionalNetwork:
    """A network as a function of its parameters, `f(theta (p,), x (n, c, h, w)) -> logits (n, k)`.

    The parameters of the wrapped network do not change. The network is in eval mode, because a recomputed step must not
    draw another dropout mask.

    Attributes:
        order: name and shape of each parameter, in the order of the vector.
        p: number of parameters.
    """

    def __init__(self, net: Network):
        """Wrap a network whose only state is its parameters, i.e. one without running statistics."""
        self.net = net.eval().requires_grad_(False)
        self.order = [(name, tuple(p.shape)) for name, p in net.named_parameters()]
        self._sizes = [p.numel() for p in net.parameters()]
        self.p = sum(self._sizes)

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return the logits `(n, k)` of inputs `x` for the parameters `theta`."""
        logits: Tensor = functional_call(self.net, self.split(theta), (x,))
        return logits

    def split(self, theta: Tensor) -> dict[str, Tensor]:
        """Return views of `theta (p,)` in the shapes of the parameters, by name."""
        parts = theta.split(self._sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self.order, parts, strict=True)}


def flatten(net: torch.nn.Module) -> Tensor:
    """Return a copy of the parameters as one vector `(p,)`, in the order of `FunctionalNetwork`."""
    return torch.cat([p.detach().flatten() for p in net.parameters()])
