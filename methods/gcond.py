"""GCond: match the gradients of a network on a real and a synthetic graph (Jin et al., ICLR 2022)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import (
    Architecture,
    DistillContext,
    Method,
    NodeSet,
    RealSet,
    State,
    seeded,
    training_nodes,
)

from ._arguments import check_at_least, check_choice
from ._nodes.neighbourhoods import Neighbourhoods
from ._nodes.pge import EdgeGenerator, check_threshold, learned_set, normalised, propagated, updates_edges
from ._nodes.quota import check_quota, initial_nodes, quota, quota_labels
from ._nodes.surrogate import AdjacencyPowers, AdjacencyRows, Surrogate, gradient_distance

RealBatch = tuple[Tensor, Tensor, AdjacencyRows | AdjacencyPowers | None]
"""Features of nodes, classes of the nodes of a batch, and the edges of GCN or SGC1."""


class GCond(Method):
    """Learn features X' and edges A' such that the gradients of a network on (X', A') are those on the real graph.

    An iteration draws a surrogate: SGC, SGC1 or a GCN. It alternates `outer` updates of X' or of the edge generator
    with `inner` steps that train the surrogate on the synthetic graph. An update minimises the distance of the
    gradients, summed over classes with weights n'_c / max n'. X' starts at the features of random training nodes.
    Labels are fixed.

    - `structure=pge`: A' is a function of X', see `EdgeGenerator`; entries of at most `threshold` are not stored.
    - `structure=none`: A' = I (GCondX). With `inner=0`, the surrogate is not trained (DosCondX).
    - `surrogate=sgc`: logits A^hops X W + b.
    - `surrogate=sgc1`: logits A^hops (relu(X W1 + b1) W2 + b2), the "SGC1" of the released code.
    - `surrogate=gcn`: a GCN of two layers, which is an MLP on X'. Only without edges.

    Deviations from the released code:

    - Gradients are computed in closed form. Logits are propagated from all neighbours of a batch; the code samples
      neighbours. SGC needs no pass over the real graph, because its features are propagated once. A batch of SGC1
      passes over the whole graph.
    - The surrogate starts at Glorot weights and zero biases.
    - Real batches are drawn without replacement.

    `gcondx` has GCond's settings, and `doscondx` those of node-level DosCond in GCond's repository. On Cora,
    GraphSlim's GCondX has a GCN, the squared error, a learning rate of 0.01 (experiment `cora_gcondx_graphslim`), and
    keeps the checkpoint that is best on the validation nodes. With all iterations of GCond, the features drift: choose
    `iterations` with `dd-bench tune`.

    The network of the run is used for the evaluation only.
    """

    modalities = ("node",)
    citation = "Jin et al., Graph Condensation for Graph Neural Networks, ICLR 2022"
    smoke: ClassVar[dict[str, Any]] = {"iterations": 3, "outer": 2}

    def __init__(
        self,
        *,
        iterations: int,
        outer: int,
        inner: int,
        lr_features: float,
        lr_edges: float,
        lr_net: float,
        batch_real: int,
        metric: str,
        surrogate: str,
        hops: int,
        hidden: int | None,
        structure: str,
        edge_hidden: int,
        threshold: float,
        nodes: int | None,
    ):
        """See `conf/method/gcond.yaml` for the arguments.

        Raises:
            ValueError: a value is unknown or out of range.
        """
        check_choice("metric", metric, ("cos", "mse"))
        check_choice("structure", structure, ("pge", "none"))
        check_choice("surrogate", surrogate, ("sgc", "sgc1", "gcn"))
        check_at_least(0, inner=inner, hops=hops)
        check_at_least(1, outer=outer, batch_real=batch_real, edge_hidden=edge_hidden, hidden=hidden)
        check_threshold(threshold)
        linear = hidden is None
        if surrogate == "gcn" and (structure, hops, linear) != ("none", 2, False):
            raise ValueError(
                "method.surrogate=gcn is a GCN of two layers for sets without edges, got "
                f"method.structure={structure}, method.hops={hops} and method.hidden={hidden}. "
                f"Use method.surrogate={'sgc' if linear else 'sgc1'}, or "
                f"method.structure=none method.hops=2 method.hidden={256 if linear else hidden}"
            )
        if surrogate != ("sgc" if linear else "sgc1") and surrogate != "gcn":
            raise ValueError(
                f"method.surrogate=sgc is linear and sgc1 has a hidden layer, got method.surrogate={surrogate} and "
                f"method.hidden={hidden}. Use method.surrogate={'sgc' if linear else 'sgc1'}"
            )
        self.iterations, self.outer, self.inner, self.surrogate = iterations, outer, inner, surrogate
        self.lr_features, self.lr_edges, self.lr_net = lr_features, lr_edges, lr_net
        self.batch_real, self.metric, self.hops, self.hidden = batch_real, metric, hops, hidden
        self.structure, self.edge_hidden, self.threshold, self.nodes = (
            structure,
            edge_hidden,
            threshold,
            nodes,
        )

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        return super().check_dataset(real, ipc, architecture) or check_quota(real, ipc, self.nodes)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> NodeSet:
        """See `Method`."""
        train, sizes = training_nodes(real), quota(real.train.counts, ipc, self.nodes)
        labels, batch = quota_labels(sizes, ctx.device), self._batches(real, ctx)
        x = train.features()[initial_nodes(real, sizes, ctx)].clone().requires_grad_()
        with seeded(ctx.device, ctx.seed_for("edges")):
            edges = EdgeGenerator(x.shape[1], self.edge_hidden).to(ctx.device)
        optimizers = {
            "features": torch.optim.Adam([x], lr=self.lr_features),
            "edges": torch.optim.Adam(edges.parameters(), lr=self.lr_edges),
        }

        def distilled() -> NodeSet:
            with torch.no_grad():
                if self.structure == "none":
                    return NodeSet.of(real, x, labels)
                return learned_set(real, x, labels, edges(x), self.threshold)

        state: State = {
            "features": x,
            "edge generator": edges,
            **{f"optimizer {k}": v for k, v in optimizers.items()},
        }
        for step in ctx.steps(self.iterations, state, preview=distilled):
            generator = ctx.generator("surrogate", step)
            surrogate = Surrogate.draw(x.shape[1], real.num_classes, self.hidden, generator)
            trainer = surrogate.optimizer(self.lr_net)
            part = "edges" if self.structure == "pge" and updates_edges(step) else "features"
            total = torch.zeros((), device=ctx.device)
            for update in range(self.outer):
                syn = self._synthetic(x, edges, sizes)
                loss = self._match(surrogate, syn, labels.split(sizes), batch, (step, update))
                for optimizer in optimizers.values():
                    optimizer.zero_grad()
                loss.backward()
                optimizers[part].step()
                total += loss.detach()
                if update + 1 < self.outer and self.inner:
                    with torch.no_grad():
                        ((z, hops),) = self._synthetic(x, edges, [len(x)])
                        surrogate.train_(z, labels, self.inner, trainer, hops)
            ctx.log(loss=total / self.outer)
        return distilled()

    def _synthetic(
        self, x: Tensor, edges: EdgeGenerator, sizes: Sequence[int]
    ) -> list[tuple[Tensor, AdjacencyPowers | None]]:
        """Return the inputs of the surrogate and its edges for each class, of which there are `sizes` nodes.

        The inputs are X' without edges, propagated features for SGC, and the features of all nodes for SGC1.
        """
        if self.structure == "none":
            return [(part, None) for part in x.split(list(sizes))]
        if self.surrogate == "sgc":
            return [(part, None) for part in propagated(x, edges(x), self.hops).split(list(sizes))]
        matrix, index = normalised(edges(x)), torch.arange(len(x), device=x.device)
        return [(x, AdjacencyPowers(matrix, self.hops, rows)) for rows in index.split(list(sizes))]

    def _match(
        self,
        surrogate: Surrogate,
        parts: Sequence[tuple[Tensor, AdjacencyPowers | None]],
        labels: Sequence[Tensor],
        batch: Callable[[int, tuple[int, int]], RealBatch],
        update: tuple[int, int],
    ) -> Tensor:
        """Return the weighted distance of the gradients of each class, 0-d.

        Args:
            surrogate: the network.
            parts: inputs and edges of the synthetic nodes of each class, see `_synthetic`.
            labels: classes of these nodes.
            batch: see `_batches`.
            update: numbers of the iteration and of the update.
        """
        total, largest = torch.zeros((), device=labels[0].device), max(map(len, labels))
        for c, ((z, hops), own) in enumerate(zip(parts, labels, strict=True)):
            target, found = surrogate.gradients(*batch(c, update)), surrogate.gradients(z, own, hops)
            total = total + len(own) / largest * gradient_distance(found, target, self.metric)
        return total

    def _batches(self, real: RealSet, ctx: DistillContext) -> Callable[[int, tuple[int, int]], RealBatch]:
        """Return a function of a class and an update, which returns a batch of real nodes of this class.

        Classes that fit into a batch are gathered once.
        """
        near = Neighbourhoods(real) if self.surrogate == "gcn" else None
        train = training_nodes(real)
        # networks that propagate after a layer need the features of all nodes
        done = {"sgc": self.hops, "sgc1": 0, "gcn": self.hops - 1}[self.surrogate]
        z = train.features(done) if self.surrogate == "sgc" else train.graph.propagated(done)
        classes = near.members if near else [real.train.of_class(c) for c in range(real.num_classes)]

        def gathered(members: Tensor, c: int) -> RealBatch:
            labels = torch.full((len(members),), c, device=z.device)
            if near is not None:
                nodes, rows = near.rows(members)
                return z[nodes], labels, AdjacencyRows(rows)
            if self.surrogate == "sgc":
                return z[members], labels, None
            return (
                z,
                labels,
                AdjacencyPowers(train.graph.adjacency.normalised, self.hops, train.index[members]),
            )

        whole = {
            c: gathered(members, c) for c, members in enumerate(classes) if len(members) <= self.batch_real
        }

        def batch(c: int, update: tuple[int, int]) -> RealBatch:
            if c in whole:
                return whole[c]
            members, stream = classes[c], ctx.stream("batch", *update, c)
            generator = stream.device if near is None else stream.host
            order = torch.randperm(len(members), generator=generator, device=members.device)
            return gathered(members[order[: self.batch_real]], c)

        return batch
