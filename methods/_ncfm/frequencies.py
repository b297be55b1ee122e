"""Where NCFM's frequencies come from: a Gaussian, or the paper's sampling network trained by ascent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dd_bench.api import DistillContext, Stateful, seeded

REPEATS = 16  # frequencies that share one scale vector, as the paper's K/16 components


class FrequencySampler:
    """Draws `m` frequencies of dimension d; fresh ones at every call.

    From N(0, I), the released default; or, `learned`, t = psi(noise) * N(0, I), a scale mixture of normals
    whose scale network psi climbs the matching loss after each image step. psi is three linear layers with
    BatchNorm, LeakyReLU 0.2 twice and tanh, as released; that the released code tiles four outputs is not
    imitated.
    """

    def __init__(self, m: int, d: int, learned: bool, lr: float, ctx: DistillContext):
        """Takes psi's Adam rate `lr`: our choice, the paper gives none."""
        self._m, self._d, self._ctx, self._psi = m, d, ctx, None
        if learned:
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
        """Trains psi one step up `loss`, a function of the frequencies last drawn."""
        self._optimizer.zero_grad()
        loss(self._draw()).backward()
        self._optimizer.step()

    def _draw(self) -> Tensor:
        generator, device = self._ctx.generator(*self._stream), self._ctx.device
        normal = torch.randn(self._m, self._d, generator=generator, device=device)
        if self._psi is None:
            return normal
        noise = torch.randn(-(-self._m // REPEATS), self._d, generator=generator, device=device)
        scales: Tensor = self._psi(noise)  # (m / 16, d)
        return scales.repeat_interleave(REPEATS, 0)[: self._m] * normal


def scale_network(d: int) -> nn.Sequential:
    """Returns psi: noise `(n, d)` to scales `(n, d)` in (-1, 1)."""
    layers: list[nn.Module] = []
    for activation in (nn.LeakyReLU(0.2), nn.LeakyReLU(0.2), nn.Tanh()):
        layers += [nn.Linear(d, d), nn.BatchNorm1d(d), activation]
    return nn.Sequential(*layers)
