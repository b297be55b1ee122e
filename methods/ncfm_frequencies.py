"""Where NCFM's frequencies come from: a Gaussian, or the paper's sampling network trained by ascent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dd_bench.base import Context
from dd_bench.checkpoint import Stateful
from dd_bench.models.network import Network
from dd_bench.seeding import seeded

_REPEATS = 16  # frequencies that share one scale vector, as the paper's K/16 components


class FrequencySampler:
    """Draws `m` frequencies of dimension d; fresh ones at every call.

    `gaussian`: N(0, I), the released default. `network`: t = psi(noise) * N(0, I), a scale mixture of normals whose
    scale network psi climbs the matching loss after each image step. psi is three linear layers with BatchNorm,
    LeakyReLU 0.2 twice and tanh, as released; that the released code tiles four outputs is not imitated.
    """

    def __init__(
        self, m: int, net: Network, shape: tuple[int, int, int], kind: str, lr: float, ctx: Context
    ):
        """Sizes itself by the embedding of `net`; `lr` is psi's Adam rate, our choice: the papers give none."""
        with torch.no_grad():
            self._d = net.embed(torch.zeros(1, *shape, device=ctx.device)).shape[1]
        self._m, self._ctx, self._psi, self._step = m, ctx, None, 0
        if kind == "network":
            with seeded("cpu", ctx.seed_for("psi")):
                self._psi = scale_network(self._d).to(ctx.device)
            self._optimizer = torch.optim.Adam(self._psi.parameters(), lr=lr, maximize=True)

    def state(self) -> dict[str, Stateful]:
        """Returns what a checkpoint must hold."""
        return {} if self._psi is None else {"psi": self._psi, "psi_optimizer": self._optimizer}

    def draw(self, step: int, group: int) -> Tensor:
        """Returns frequencies `(m, d)` without a graph."""
        self._stream = ("frequencies", step, group)
        with torch.no_grad():
            return self._draw()

    def ascend(self, loss: Callable[[Tensor], Tensor]) -> None:
        """Trains psi one step up `loss`, a function of frequencies; nothing to do for `gaussian`."""
        if self._psi is None:
            return
        self._optimizer.zero_grad()
        loss(self._draw()).backward()
        self._optimizer.step()

    def _draw(self) -> Tensor:
        generator, device = self._ctx.generator(*self._stream), self._ctx.device
        normal = torch.randn(self._m, self._d, generator=generator, device=device)
        if self._psi is None:
            return normal
        noise = torch.randn(-(-self._m // _REPEATS), self._d, generator=generator, device=device)
        return self._psi(noise).repeat_interleave(_REPEATS, 0)[: self._m] * normal


def scale_network(d: int) -> nn.Sequential:
    """Returns psi: noise `(n, d)` to scales `(n, d)` in (-1, 1)."""
    layers: list[nn.Module] = []
    for activation in (nn.LeakyReLU(0.2), nn.LeakyReLU(0.2), nn.Tanh()):
        layers += [nn.Linear(d, d), nn.BatchNorm1d(d), activation]
    return nn.Sequential(*layers)
