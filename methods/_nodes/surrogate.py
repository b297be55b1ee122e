"""SGC, SGC1 and GCN as the surrogate networks of gradient matching, and their gradients in closed form.

The propagated features of the real graph do not depend on the network, so they are computed once. A step of SGC then
costs a few products of small matrices, and no pass over the graph. GCN propagates once more after its hidden layer, so
a step also needs the neighbours of the nodes in the batch. SGC1 propagates its logits, so a step is a pass over the
whole graph: time and memory are linear in its nodes and edges.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class AdjacencyRows(NamedTuple):
    """The rows of `n` labelled nodes in a normalised adjacency. A GCN multiplies the inputs of its last layer by them.

    Attributes:
        matrix: dense `(n, m)`.
    """

    matrix: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Return the product with `x (m, k)`, `(n, k)`."""
        return self.matrix @ x

    def transposed(self, error: Tensor) -> Tensor:
        """Return the product of the transposed rows and `error (n, k)`, `(m, k)`."""
        return self.matrix.t() @ error


class AdjacencyPowers(NamedTuple):
    """Some rows of a power of a normalised adjacency. SGC1 multiplies its logits by them. The power is not computed.

    Attributes:
        adjacency: symmetric, sparse or dense `(m, m)`.
        hops: the exponent.
        nodes: the rows, different nodes, `(n,)`.
    """

    adjacency: Tensor
    hops: int
    nodes: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Return the product with `x (m, k)`, `(n, k)`."""
        for _ in range(self.hops):
            x = self.adjacency @ x
        return x[self.nodes]

    def transposed(self, error: Tensor) -> Tensor:
        """Return the product of the transposed rows and `error (n, k)`, `(m, k)`."""
        x = error.new_zeros(len(self.adjacency), error.shape[1]).index_copy(0, self.nodes, error)
        for _ in range(self.hops):
            x = self.adjacency @ x
        return x


class Surrogate(NamedTuple):
    """Weights of a network on features `z (n, d)`: logits `z W + b`, or with a hidden layer of ReLU units.

    On propagated features and without a hidden layer, it is SGC. With a hidden layer, it is a GCN of two layers or SGC1
    if `gradients` gets edges, and else an MLP.

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

    def gradients(
        self, z: Tensor, labels: Tensor, edges: AdjacencyRows | AdjacencyPowers | None = None
    ) -> list[Tensor]:
        """Return the gradient of the mean cross-entropy, for each weight and then each bias.

        It is differentiable with respect to `z` and dense edges, and equals that of `torch.autograd` with
        `create_graph`.

        Args:
            z: features `(n, d)`; with `edges`, those of `m` nodes, `(m, d)`.
            labels: classes of the labelled nodes, `(n,)`.
            edges: `AdjacencyRows` multiply the input of the last layer (GCN), `AdjacencyPowers` its output (SGC1).
                None: nodes without edges, or SGC.
        """
        inputs, masks = [z], []
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            before = inputs[-1] @ weight + bias
            masks.append((before > 0).to(z.dtype))
            inputs.append(before.relu())
        last = edges.apply(inputs[-1]) if isinstance(edges, AdjacencyRows) else inputs[-1]
        outputs = last @ self.weights[-1] + self.biases[-1]
        logits = edges.apply(outputs) if isinstance(edges, AdjacencyPowers) else outputs
        error = (logits.softmax(1) - F.one_hot(labels, logits.shape[1])) / len(labels)
        if isinstance(edges, AdjacencyPowers):
            error = edges.transposed(error)
        of_weights, of_biases = [last.t() @ error], [error.sum(0)]
        if isinstance(edges, AdjacencyRows):
            error = edges.transposed(error)
        for x, mask, weight in zip(inputs[-2::-1], masks[::-1], self.weights[:0:-1], strict=True):
            error = (error @ weight.t()) * mask
            of_weights.insert(0, x.t() @ error)
            of_biases.insert(0, error.sum(0))
        return [*of_weights, *of_biases]

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        """Return Adam for the weights and biases, which `train_` changes in place."""
        return torch.optim.Adam([*self.weights, *self.biases], lr=lr)

    def train_(
        self,
        z: Tensor,
        labels: Tensor,
        steps: int,
        optimizer: torch.optim.Optimizer,
        edges: AdjacencyPowers | None = None,
    ) -> None:
        """Train for `steps` steps on all nodes, in place. `optimizer` keeps its moments between calls."""
        for _ in range(steps):
            for p, gradient in zip(
                (*self.weights, *self.biases), self.gradients(z, labels, edges), strict=True
            ):
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
