"""SGC and GCN as the surrogate networks of gradient matching, and their gradients in closed form.

The propagated features of the real graph do not depend on the network, so they are computed once. A step of SGC then
costs a few products of small matrices, and no pass over the graph. GCN propagates once more after its hidden layer, so
a step also needs the neighbours of the nodes in the batch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Surrogate(NamedTuple):
    """Weights of SGC on propagated features `z (n, d)`: logits `z W + b`, or with a hidden layer of ReLU units.

    With a hidden layer and `rows` of an adjacency, it is a GCN of two layers, see `gradients`.

    Attributes:
        weights: `(d, k)`; or `(d, h)` and `(h, k)`.
        biases: `(k,)`; or `(h,)` and `(k,)`.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    @classmethod
    def draw(cls, d: int, k: int, hidden: int | None, generator: torch.Generator) -> Surrogate:
        """Return random Glorot weights, and biases of zero, on the device of the generator."""
        device, widths = generator.device, [d, k] if hidden is None else [d, hidden, k]
        weights = []
        for rows, columns in pairwise(widths):
            bound = (6 / (rows + columns)) ** 0.5
            weights.append((torch.rand(rows, columns, generator=generator, device=device) * 2 - 1) * bound)
        return cls(tuple(weights), tuple(torch.zeros(columns, device=device) for columns in widths[1:]))

    def gradients(self, z: Tensor, labels: Tensor, rows: Tensor | None = None) -> list[Tensor]:
        """Return the gradient of the mean cross-entropy, for each weight and then each bias.

        It is differentiable with respect to `z`, and equals that of `torch.autograd` with `create_graph`.

        Args:
            z: features `(n, d)`; with `rows`, those of `m` nodes, `(m, d)`.
            labels: classes `(n,)`.
            rows: the rows of the labelled nodes in the normalised adjacency, `(n, m)`. The input of the last layer is
                multiplied by it, as in a GCN. None: nodes without edges, or SGC.
        """
        inputs, masks = [z], []
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            before = inputs[-1] @ weight + bias
            masks.append((before > 0).to(z.dtype))
            inputs.append(before.relu())
        last = inputs[-1] if rows is None else rows @ inputs[-1]
        logits = last @ self.weights[-1] + self.biases[-1]
        error = (logits.softmax(1) - F.one_hot(labels, logits.shape[1])) / len(labels)
        of_weights, of_biases = [last.t() @ error], [error.sum(0)]
        error = error if rows is None else rows.t() @ error
        for x, mask, weight in zip(inputs[-2::-1], masks[::-1], self.weights[:0:-1], strict=True):
            error = (error @ weight.t()) * mask
            of_weights.insert(0, x.t() @ error)
            of_biases.insert(0, error.sum(0))
        return [*of_weights, *of_biases]

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        """Return Adam for the weights and biases, which `train_` changes in place."""
        return torch.optim.Adam([*self.weights, *self.biases], lr=lr)

    def train_(self, z: Tensor, labels: Tensor, steps: int, optimizer: torch.optim.Optimizer) -> None:
        """Train for `steps` steps on all nodes, in place. `optimizer` keeps its moments between calls."""
        for _ in range(steps):
            for p, gradient in zip((*self.weights, *self.biases), self.gradients(z, labels), strict=True):
                p.grad = gradient
            optimizer.step()


def gradient_distance(syn: list[Tensor], real: list[Tensor], metric: str) -> Tensor:
    """Return the distance of two lists of gradients, 0-d.

    `cos`: the sum over weight matrices and their output columns of one minus the cosine; biases are not compared.
    `mse`: the squared L2 norm of the difference, with the biases.
    """
    if metric == "mse":
        return torch.stack([(a - b).square().sum() for a, b in zip(syn, real, strict=True)]).sum()
    total = torch.zeros((), device=syn[0].device)
    for a, b in zip(syn, real, strict=True):
        if a.ndim == 2:
            # clamp_min keeps the gradient of the square root finite for dead units
            norms = a.square().sum(0).clamp_min(1e-30).sqrt() * b.square().sum(0).clamp_min(1e-30).sqrt()
            total = total + (1 - (a * b).sum(0) / (norms + 1e-6)).sum()
    return total
