"""GC-SNTK: kernel ridge regression with the tangent kernel of graph networks (Wang et al., WWW 2024)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import (
    Architecture,
    DistillContext,
    Method,
    NodeGraph,
    NodeSet,
    NodeSplit,
    RealSet,
    State,
    one_hot,
    training_nodes,
)

from ._arguments import check_at_least, check_choice
from ._nodes.quota import check_quota, quota
from ._nodes.structure_ntk import KernelNodes, aggregation, structure_ntk


class GCSNTK(Method):
    """Learn features X' and soft labels Y' of nodes without edges that predict the labels of the training nodes.

        X' ~ U(0, 1), labels ~ U(0, 1)
        K = tangent kernel of a graph network of infinite width, see `structure_ntk`
        prediction = K_TS (K_SS + ridge * trace(K_SS) / n' * I)^-1 Y'
        loss = mean squared difference of the prediction and the one-hot labels of the training nodes T
        Adam step on X' and on Y'

    No network is trained. Features of real nodes are standardised, and propagated `hops` times over the whole graph.
    The kernel aggregates over the edges among the training nodes. X' is learned as standardised features, and stored
    in the space of the dataset. Y' is learned as logits, and its softmax is stored, because networks are trained on it
    with cross-entropy. Soft labels count equally for all classes, so only the number of nodes follows from `ipc`.

    With more than `batch_real` training nodes, an iteration uses a random batch of them. It then waits for the device
    once, for the number of edges among them.

    Deviations from the released code:

    - Y' consists of distributions. In the paper and the code, its values are free.
    - The prediction is that of the paper. The code applies a softmax to it.
    - The covariance of the derivatives of the ReLU is computed before the layer, as in the theory. The code computes it
      from the covariance after the layer.
    - Correlations are clipped at 1 - 1e-9 instead of 0.9999, and computed in float64.
    - Batches of large graphs are drawn at random. The code has clusters of nodes, and adds the gradients of ten.

    The network of the run is used for the evaluation only.
    """

    modalities = ("node",)
    citation = "Wang et al., Fast Graph Condensation with Structure-based Neural Tangent Kernel, WWW 2024"
    smoke: ClassVar[dict[str, Any]] = {"iterations": 3}

    def __init__(
        self,
        *,
        iterations: int,
        lr: float,
        ridge: float,
        blocks: int,
        layers: int,
        aggregate: str,
        hops: int,
        batch_real: int,
        nodes: int | None,
    ):
        """See `conf/method/gc_sntk.yaml` for the arguments.

        Raises:
            ValueError: a value is unknown or out of range.
        """
        check_choice("aggregate", aggregate, ("mean", "sum"))
        check_at_least(0, hops=hops)
        check_at_least(1, blocks=blocks, layers=layers, batch_real=batch_real)
        if not ridge > 0:
            raise ValueError(f"method.ridge must be > 0, got {ridge}. Example: method.ridge=1")
        self.iterations, self.lr, self.ridge = iterations, lr, ridge
        self.blocks, self.layers, self.aggregate, self.hops = blocks, layers, aggregate, hops
        self.batch_real, self.nodes = batch_real, nodes

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        return super().check_dataset(real, ipc, architecture) or check_quota(real, ipc, self.nodes)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> NodeSet:
        """See `Method`."""
        train, n = training_nodes(real), sum(quota(real.train.counts, ipc, self.nodes))
        mean, std = standardisation(train.graph.features)
        z = self._inputs(train, mean, std)
        generator = ctx.generator("init")
        x = torch.rand(n, z.shape[1], generator=generator, device=ctx.device)
        y = torch.rand(n, real.num_classes, generator=generator, device=ctx.device)
        optimizer = torch.optim.Adam([x, y], lr=self.lr)
        every = torch.arange(len(train), device=ctx.device)
        truth = one_hot(train.labels, real.num_classes, torch.float64)
        whole = self._targets(train, z, every) if len(train) <= self.batch_real else None

        def distilled() -> NodeSet:
            return NodeSet.of(real, x * std + mean, y.softmax(1))

        state: State = {"features": x, "labels": y, "optimizer": optimizer}
        for step in ctx.steps(self.iterations, state, preview=distilled):
            index, targets = every, whole
            if targets is None:
                generator = ctx.generator("batch", step)
                index = torch.randperm(len(train), generator=generator, device=ctx.device)[: self.batch_real]
                targets = self._targets(train, z, index)
            features, logits = (t.detach().requires_grad_() for t in (x, y))
            prediction = self.predict(targets, features, logits.softmax(1))
            loss = torch.nn.functional.mse_loss(prediction, truth[index])
            x.grad, y.grad = torch.autograd.grad(loss, [features, logits])
            optimizer.step()
            ctx.log(loss=loss.detach())
        return distilled()

    def predict(self, targets: KernelNodes, x: Tensor, y: Tensor) -> Tensor:
        """Return the predictions of kernel ridge regression for the targets, float64 `(t, k)`.

        Args:
            targets: real nodes.
            x: standardised features of the synthetic nodes, `(n, d)`.
            y: their labels, `(n, k)`.
        """
        syn = KernelNodes.without_edges(x.double(), self.blocks)
        gram = structure_ntk(syn, syn, self.layers)
        ridge = self.ridge * gram.trace() / len(gram) * torch.eye(len(gram), device=gram.device)
        # unlike `solve`, it does not wait for the device to check whether the matrix is singular
        weights: Tensor = torch.linalg.solve_ex(gram + ridge, y.double()).result
        return structure_ntk(targets, syn, self.layers) @ weights

    def _inputs(self, train: NodeSplit, mean: Tensor, std: Tensor) -> Tensor:
        """Return the standardised and propagated features of the training nodes, float32 `(n, d)`."""
        standardised = NodeGraph((train.graph.features - mean) / std, train.graph.adjacency)
        return standardised.propagated(self.hops)[train.index]

    def _targets(self, train: NodeSplit, z: Tensor, index: Tensor) -> KernelNodes:
        """Return the training nodes at `index (t,)` with the edges among them."""
        among = train.graph.adjacency.subgraph(train.index[index])
        matrix = aggregation(among, self.aggregate)
        return KernelNodes.of_graph(z[index].double(), matrix, self.blocks, self.layers)


def standardisation(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of each column of `features (v, d)`; 1 for constant columns."""
    std, mean = torch.std_mean(features, 0, correction=0)
    return mean, torch.where(std > 0, std, torch.ones_like(std))
