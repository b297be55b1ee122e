"""Draw the frequencies of NCFM from a Gaussian or with the paper's sampling network.

The sampling network is trained by gradient ascent on the matching loss.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dd_bench.api import DistillContext, Stateful, seeded

REPEATS = 16  # frequencies that share one scale vector; the paper's mixture has K/16 components


class FrequencySampler:
    """Sampler of `m` frequencies of dimension d. Every call of `draw` returns new frequencies.

    By default, as in the released code, frequencies are drawn from N(0, I). With `learned`, they are
    `psi(noise) * N(0, I)`, a scale mixture of normals. After each image step, the scale network psi takes a gradient
    ascent step on the matching loss. psi has three linear layers, each with BatchNorm. As in the released code,
    LeakyReLU(0.2) follows the first two layers, and tanh follows the last.

    psi is evaluated at m / 16 noise vectors. Each of its outputs scales 16 frequencies. This is a deviation from the
    released code, which has four different outputs and repeats them for all frequencies.
    """

    def __init__(self, m: int, d: int, learned: bool, lr: float, ctx: DistillContext):
        """Create the sampler; `lr` is the learning rate of psi's Adam (our choice, the paper states none)."""
        self._m, self._d, self._ctx, self._psi = m, d, ctx, None
        if learned:
            with seeded("cpu", ctx.seed_for("psi")):
                self._psi = scale_network(self._d).to(ctx.device)
            self._optimizer = torch.optim.Adam(self._psi.parameters(), lr=lr, maximize=True)

    def state(self) -> dict[str, Stateful]:
        """Return the state to store in a checkpoint."""
        return {} if self._psi is None else {"psi": self._psi, "psi_optimizer": self._optimizer}

    def draw(self, step: int, group: int) -> Tensor:
        """Return frequencies `(m, d)` without an autograd graph."""
        self._stream = ("frequencies", step, group)
        with torch.no_grad():
            return self._draw()

    def ascend(self, loss: Callable[[Tensor], Tensor]) -> None:
        """Take one gradient ascent step of psi on `loss(frequencies)`, at the frequencies of the last `draw`."""
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
    """Return psi, which maps noise `(n, d)` to scales `(n, d)` in (-1, 1)."""
    layers: list[nn.Module] = []
    for activation in (nn.LeakyReLU(0.2), nn.LeakyReLU(0.2), nn.Tanh()):
        layers += [nn.Linear(d, d), nn.BatchNorm1d(d), activation]
    return nn.Sequential(*layers)
