"""DosCond: one-step gradient matching on graphs whose edges are learned (Jin et al., KDD 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dd_bench.api import (
    Architecture,
    DistillContext,
    Graphs,
    GraphSet,
    GraphSplit,
    Method,
    RealSet,
    classification_loss,
    coalesce,
    training_graphs,
)

LOGIT = 5.0  # of an edge that is there at the start; of one that is not, minus this


class DosCond(Method):
    """Matches the gradients of fresh networks on real and on synthetic graphs, and never trains a network.

    A synthetic graph has as many nodes as the real ones have on average, float weights of the label values, and a
    logit for each pair of nodes, of which a relaxed Bernoulli draw at a falling temperature makes edges. In the end
    the pairs with a probability above one half are edges, and nodes that stand alone at the end of a graph are cut.

    Deviations from the released code:

    - Real and synthetic graphs pass through one GCN, with one normalisation; there, through two.
    - Label weights enter by the network's embedding of the labels; there, raw integers cast to floats.
    - `joint=false` matches class by class for every collection, as there for TUDataset.
    - The term that bounds the synthetic degrees on molhiv is left out.
    - The readout is the network's own, a sum unless `model.readout=mean`; there, the mean but on molhiv.
    - Networks that look at edge labels see the first of them on every learned edge; GCN, on which this distils, none.
    """

    modalities = ("graph",)
    citation = "Jin et al., Condensing Graphs via One-Step Gradient Matching, KDD 2022"
    smoke: ClassVar[dict[str, Any]] = {"iterations": 3, "batch_real": 8}

    def __init__(
        self,
        *,
        iterations: int,
        lr_nodes: float,
        lr_edges: float,
        decay_after: int,
        batch_real: int,
        temperature: float,
        cool_over: int,
        sparsity: float,
        joint: bool,
    ):
        """Takes the hyper-parameters; see `conf/method/doscond.yaml`."""
        if not 0 < temperature <= 1 or cool_over < 1 or batch_real < 1:
            raise ValueError(
                f"method.temperature={temperature}, cool_over={cool_over}, batch_real={batch_real}: wanted in (0, 1], "
                ">= 1 and >= 1"
            )
        self.iterations, self.lr_nodes, self.lr_edges = iterations, lr_nodes, lr_edges
        self.decay_after, self.batch_real = decay_after, batch_real
        self.temperature, self.cool_over, self.sparsity, self.joint = temperature, cool_over, sparsity, joint

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture):
            return reason
        if not getattr(architecture.make, "uses_edge_weights", False):
            return f"DosCond learns weights of edges, which {architecture.title} does not take. Use model=gcn"
        size = self._size(training_graphs(real))
        few = [c for c in range(real.num_classes) if int((self._sizes(real, c) <= size).sum()) < ipc]
        if few:
            name = real.class_names[few[0]]
            return f"ipc={ipc}: class {name!r} has fewer graphs of {size} nodes or less to start from"
        return None

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> GraphSet:
        """See `Method`."""
        split = training_graphs(real)
        nodes, logits, labels = self._start(split, ipc, ctx)
        nodes.requires_grad_(), logits.requires_grad_()
        density = logits.detach().sigmoid().mean()
        complete = _complete(len(nodes), logits.shape[1], ctx.device)
        optimizer = torch.optim.Adam(
            [{"params": [nodes], "lr": self.lr_nodes}, {"params": [logits], "lr": self.lr_edges}]
        )
        for step in ctx.steps(self.iterations, {"nodes": nodes, "logits": logits, "optimizer": optimizer}):
            for group, lr in zip(optimizer.param_groups, (self.lr_nodes, self.lr_edges), strict=True):
                group["lr"] = lr * (0.1 if step >= self.decay_after else 1.0)
            net = ctx.network(ctx.architecture, step)
            graphs = self._relaxed(nodes, logits, complete, step, ctx)
            loss = self._match(net, split, graphs, labels, step, ctx)
            loss = loss + self.sparsity * torch.relu(_symmetric(logits).sigmoid().mean() - density)
            nodes.grad, logits.grad = torch.autograd.grad(
                loss, [nodes, logits]
            )  # not of the network, which goes
            optimizer.step()
            ctx.log(loss=loss.detach())
        return _discrete(nodes.detach().cpu(), _symmetric(logits.detach()).cpu(), labels.cpu(), real)

    def _match(
        self,
        net: nn.Module,
        split: GraphSplit,
        graphs: Graphs,
        labels: Tensor,
        step: int,
        ctx: DistillContext,
    ) -> Tensor:
        """Returns the squared distance of the gradients over that of the real one from zero, summed over classes."""
        parameters = [p for p in net.parameters() if p.requires_grad]
        of = ctx.generator("real", step)
        real_index = [_drawn(split.of_class(c), self.batch_real, of) for c in range(split.num_classes)]
        syn_index = [(labels == c).nonzero().flatten() for c in range(split.num_classes)]
        if self.joint:
            real_index, syn_index = [torch.cat(real_index)], [torch.cat(syn_index)]
        loss = torch.zeros((), device=ctx.device)
        for real_part, syn_part in zip(real_index, syn_index, strict=True):
            target = _gradient(net, split.inputs(real_part), split.labels[real_part], parameters, False)
            own = _gradient(net, graphs[syn_part], labels[syn_part], parameters, True)
            loss = loss + (own - target).square().sum() / target.square().sum().clamp_min(1e-12)
        return loss

    def _relaxed(
        self,
        nodes: Tensor,
        logits: Tensor,
        complete: tuple[Tensor, Tensor, Tensor],
        step: int,
        ctx: DistillContext,
    ) -> Graphs:
        """Returns the graphs with a relaxed draw of every edge (Maddison et al., ICLR 2017)."""
        pairs, edges, ptr = complete
        share = min(1.0, step / self.cool_over)
        t = self.temperature**share  # from one down to `temperature`
        u = torch.rand(logits.shape, generator=ctx.generator("edges", step), device=ctx.device).clamp(
            1e-6, 1 - 1e-6
        )
        u = u.triu(1) + u.triu(1).transpose(1, 2)
        a = ((u.clamp_min(1e-6).logit() + _symmetric(logits)) / t).sigmoid()
        weights = a[:, pairs[0], pairs[1]].flatten()
        # a label of the edges, which GCN does not see
        return Graphs(nodes.flatten(0, 1), edges, edges.new_zeros(edges.shape[1], 0), ptr, weights=weights)

    def _start(self, split: GraphSplit, ipc: int, ctx: DistillContext) -> tuple[Tensor, Tensor, Tensor]:
        """Returns node weights `(n, size, values)`, edge logits `(n, size, size)` and labels of random real graphs."""
        size, values = self._size(split), split.spec.nodes
        chosen, of = [], ctx.generator("init")
        for c in range(split.num_classes):
            members = split.of_class(c)
            members = members[split.graphs.num_nodes[members] <= size]
            chosen.append(_drawn(members, ipc, of))
        index = torch.cat(chosen)
        graphs = split.inputs(index)
        nodes = torch.zeros(len(index), size, sum(values), device=ctx.device)
        logits = torch.full((len(index), size, size), -LOGIT, device=ctx.device)
        place = torch.arange(len(graphs.nodes), device=ctx.device) - graphs.ptr[graphs.graph_of]
        start = torch.tensor([sum(values[:i]) for i in range(len(values))], device=ctx.device)
        for column in range(len(values)):
            nodes[graphs.graph_of, place, graphs.nodes[:, column] + start[column]] = 1.0
        sender, receiver = graphs.edges
        logits[graphs.graph_of[sender], place[sender], place[receiver]] = LOGIT
        return nodes, logits, split.labels[index]

    @staticmethod
    def _size(split: GraphSplit) -> int:
        """Returns the nodes of a synthetic graph: the mean of the real ones, rounded."""
        return max(2, round(float(split.graphs.num_nodes.float().mean())))

    @staticmethod
    def _sizes(real: RealSet, c: int) -> Tensor:
        split = training_graphs(real)
        return split.graphs.num_nodes[split.of_class(c)]


def _complete(n: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Returns all pairs of nodes of one graph, those of `n` graphs as edges, and where each graph begins."""
    at = torch.arange(size, device=device)
    pairs = torch.cartesian_prod(at, at)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]].t()  # no loops
    ptr = torch.arange(n + 1, device=device) * size
    return pairs, (pairs[:, None] + ptr[:-1, None]).flatten(1), ptr


def _symmetric(logits: Tensor) -> Tensor:
    return (logits + logits.transpose(1, 2)) / 2


def _drawn(index: Tensor, count: int, of: torch.Generator) -> Tensor:
    """Returns up to `count` of the indices, without replacement."""
    return index[torch.randperm(len(index), generator=of, device=index.device)[:count]]


def _gradient(
    net: nn.Module, graphs: Graphs, labels: Tensor, parameters: Sequence[Tensor], keep: bool
) -> Tensor:
    """Returns the gradient of the classification loss, `(p,)`; `keep` to differentiate it again."""
    loss = classification_loss(net(graphs), labels)
    parts = torch.autograd.grad(loss, parameters, create_graph=keep, allow_unused=True)
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for g, p in zip(parts, parameters, strict=True)
        ]
    )


def _discrete(nodes: Tensor, logits: Tensor, labels: Tensor, real: RealSet) -> GraphSet:
    """Returns the set with the edges that are more likely than not, without the lonely nodes at a graph's end."""
    spec, rows, edges, sizes, shift = training_graphs(real).spec, [], [], [], 0
    for x, a in zip(nodes, logits, strict=True):
        there = (a > 0).fill_diagonal_(False)
        linked = there.any(1).nonzero().flatten()
        size = int(linked.max()) + 1 if len(linked) else 1
        pairs = there[:size, :size].nonzero().t()
        rows.append(x[:size])
        edges.append(pairs + shift)
        sizes.append(size)
        shift += size
    count = torch.tensor(sizes)
    both, _ = coalesce(torch.cat(edges, 1), torch.zeros(sum(e.shape[1] for e in edges), 0).long())
    marks = torch.zeros(both.shape[1], len(spec.edges), dtype=torch.int64)
    ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
    graphs = Graphs(torch.cat(rows).contiguous(), both, marks, ptr)
    return GraphSet(graphs, labels, spec, real.class_names)
