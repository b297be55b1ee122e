"""Selection in Bonsai and one update in GCond on Cora, each against a plain version of the released loop.

    python benchmarks/node_speed.py [--root FOLDER] [--rounds 3]      # minutes, mostly for the baseline

Bonsai, on its split of Cora at 0.5 % of the bytes: the plain version computes the matrix of all distances and
partitions each of its rows, selects with Python sets, visits the neighbours of the neighbours of each exemplar, and
ranks with networkx. Each part gets the same inputs as ours. The benchmark checks that the distances of the neighbours
and the order of the exemplars are the same, and that at most 1 % of the nodes differ, since networkx ends its iteration
earlier.

GCond, on the public split: an update of the features or edges, and the 15 steps of the surrogate after it. The plain
version passes the concatenated features of all pairs to the edge generator. For each class it runs the surrogate on the
real nodes within two hops and on the synthetic graph, and differentiates with `torch.autograd`. The nodes within two
hops are computed once; the released code samples them again in each update. The benchmark checks that both have equal
gradients in the first update, and the same losses in all. The optimizer of the surrogate is ours on both sides.

Both sides take turns.
"""

from __future__ import annotations

import argparse
import heapq
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import report
import torch
import torch.nn.functional as F
from sklearn.metrics import pairwise_distances
from torch import Tensor, nn

from dd_bench.data.node_dataset import NodeSplit, training_nodes
from dd_bench.data.planetoid import planetoid
from dd_bench.methods._nodes.coverage import greedy_coverage, nearest_neighbours
from dd_bench.methods._nodes.pge import EdgeGenerator
from dd_bench.methods._nodes.surrogate import Surrogate
from dd_bench.methods._nodes.tree import smoothed_features, tree_columns
from dd_bench.methods.bonsai import Bonsai, costs
from dd_bench.methods.gcond import GCond
from dd_bench.records.config_diff import shipped_config

CPU = torch.device("cpu")
BUDGET = 39016  # 0.5 % of the bytes of Cora by the rule of Bonsai's code
UPDATES = 4  # of GCond, per turn
IPCS = (5, 10, 20)


def method_of(name: str, **changed: Any) -> Any:
    knobs = {k: v for k, v in shipped_config("method", name).items() if not k.startswith("_")}
    return {"bonsai": Bonsai, "gcond": GCond}[name](**(knobs | changed))


def load(root: str, **changed: str) -> Any:
    knobs: dict[str, Any] = {"features": "row_sum", "split": "public", "setting": "transductive"}
    return planetoid(name="cora", root=root, download=False, device=CPU, **(knobs | changed))


def in_turns(
    rounds: int, sides: dict[str, Callable[[], Any]]
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Run the sides in turn, after a warm-up; return the seconds and the last results of each."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    results = {side: function() for side, function in sides.items()}
    for i in range(rounds):
        for side in list(sides)[:: 1 if i % 2 == 0 else -1]:
            began = time.perf_counter()
            results[side] = sides[side]()
            seconds[side].append(time.perf_counter() - began)
    return seconds, results


def row_of(seconds: dict[str, list[float]], **described: Any) -> dict[str, Any]:
    medians = {f"{side}_ms": 1000 * statistics.median(took) for side, took in seconds.items()}
    return {**described, **medians, **report.ratio_of(seconds["plain"], seconds["ours"])}


# Bonsai


def partitioned(points: Tensor, k: int) -> Tensor:
    """Return the k nearest points of each point, from the matrix of all distances."""
    distances = pairwise_distances(points.numpy())
    return torch.from_numpy(np.stack([np.argpartition(row, k)[:k] for row in distances]))


def coverage_by_sets(covers: Tensor, points: int) -> list[int]:
    """Return the points in the order of lazy greedy maximum coverage, with sets of the queries that are covered."""
    represented: dict[int, set[int]] = {v: set() for v in range(points)}
    for i, row in enumerate(covers.tolist()):
        for v in row:
            represented[v].add(i)
    heap = [(-len(queries), v) for v, queries in represented.items()]
    heapq.heapify(heap)
    covered: set[int] = set()
    order: list[int] = []
    while heap:
        _, v = heapq.heappop(heap)
        gain = len(represented[v] - covered)
        if heap and (-gain, v) > heap[0]:
            heapq.heappush(heap, (-gain, v))
            continue
        if gain == 0:
            return [*order, *sorted([v, *(u for _, u in heap)])]
        order.append(v)
        covered |= represented[v]
    return order


def filled(
    order: list[int], near: dict[int, set[int]], node_costs: list[float], edge_cost: float, budget: float
) -> tuple[list[int], set[int], set[tuple[int, int]]]:
    """Return exemplars, nodes and edges within a budget, edge by edge, with the size computed again for each edge."""
    nodes: set[int] = set()
    edges: set[tuple[int, int]] = set()
    exemplars, misses, size = [], 0, 0.0
    for v in order:
        more_nodes, more_edges = {v} - nodes, set()
        for u in near[v]:
            if u not in nodes:
                more_nodes.add(u)
            for a, b in ((v, u), *((u, w) for w in near[v] & near[u])):
                if (edge := (min(a, b), max(a, b))) not in edges:
                    more_edges.add(edge)
        added = sum(node_costs[u] for u in more_nodes) + edge_cost * len(more_edges)
        if size + added <= budget:
            exemplars.append(v)
            nodes |= more_nodes
            edges |= more_edges
            size += added
        else:
            misses += 1
            if misses > 100:
                break
    return exemplars, nodes, edges


def ranked_by_networkx(graph: Any, order: list[int], damping: float) -> list[int]:
    """Return the nodes of the highest PageRank in the larger selection, as many as in the smaller one."""
    near: dict[int, set[int]] = {v: set() for v in range(graph.adjacency.v)}
    for a, b in graph.adjacency.edges.t().tolist():
        near[a].add(b)
    node_costs, edge_cost = costs(graph.features, "bonsai_bytes")
    _, kept, _ = filled(order, near, node_costs, edge_cost, BUDGET)
    exemplars, nodes, edges = filled(order, near, node_costs, edge_cost, 10 * BUDGET)
    merged = nx.Graph()
    merged.add_nodes_from(nodes)
    merged.add_edges_from(edges)
    merged.add_edges_from((v, v) for v in exemplars)
    rank = nx.pagerank(merged, alpha=damping, personalization=dict.fromkeys(exemplars, 1))
    return sorted(rank, key=rank.__getitem__, reverse=True)[: len(kept)]


def bonsai(root: str, rounds: int) -> list[dict[str, Any]]:
    method = method_of("bonsai", budget="bonsai_bytes", amount=BUDGET, keep="first_pass")
    train = training_nodes(load(root, features="raw", split="random"))
    smoothed = smoothed_features(train.graph)[train.index]
    columns = tree_columns(smoothed, train.labels)
    points, graph = smoothed[:, columns], train.graph.with_columns(columns)
    k, n = method.neighbours, len(train)
    queries = torch.arange(n)

    neighbours, found = in_turns(
        rounds,
        {"ours": lambda: nearest_neighbours(points, k, queries), "plain": lambda: partitioned(points, k)},
    )
    exact = torch.cdist(points.double(), points.double())
    ours, plain = (exact.gather(1, found[side]).sort(1).values for side in ("ours", "plain"))
    assert torch.allclose(ours, plain, atol=1e-5), "the distances of the neighbours differ"

    covers = found["ours"]
    coverage, found = in_turns(
        rounds, {"ours": lambda: greedy_coverage(covers, n), "plain": lambda: coverage_by_sets(covers, n)}
    )
    assert found["ours"] == found["plain"], "the orders of the exemplars differ"

    order = train.index[torch.tensor(found["ours"])].tolist()
    ranking, found = in_turns(
        rounds,
        {
            "ours": lambda: method._ranked(graph, order, train)[0],
            "plain": lambda: ranked_by_networkx(graph, order, method.damping),
        },
    )
    nodes, other = set(found["ours"]), set(found["plain"])
    assert len(nodes) == len(other), "the numbers of nodes differ"
    assert len(nodes & other) >= 0.99 * len(nodes), "more than 1 % of the nodes differ"

    parts = {"neighbours": neighbours, "coverage": coverage, "neighbourhoods and ranks": ranking}
    total = {
        side: [sum(took) for took in zip(*(part[side] for part in parts.values()), strict=True)]
        for side in ("ours", "plain")
    }
    rows = [row_of(seconds, part=name) for name, seconds in (parts | {"together": total}).items()]
    rows[-1] |= {"training_nodes": n, "nodes": len(nodes), "same_nodes": len(nodes & other)}
    return rows


# GCond


class PairGenerator(nn.Module):
    """The edge generator on the concatenated features of all pairs, with the weights of ours."""

    def __init__(self, ours: EdgeGenerator):
        super().__init__()
        hidden, d = ours.sender.weight.shape
        self.first, self.middle, self.out = (
            nn.Linear(2 * d, hidden),
            nn.Linear(hidden, hidden),
            nn.Linear(hidden, 1),
        )
        self.norms = nn.ModuleList([nn.BatchNorm1d(hidden, track_running_stats=False) for _ in range(2)])
        with torch.no_grad():
            self.first.weight.copy_(torch.cat([ours.sender.weight, ours.receiver.weight], 1))
            self.first.bias.copy_(ours.sender.bias)
        self.middle.load_state_dict(ours.middle.state_dict())
        self.out.load_state_dict(ours.out.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """Return the adjacency of the features `x (n, d)`."""
        n = len(x)
        pairs = torch.cat([x.repeat_interleave(n, 0), x.repeat(n, 1)], 1)
        h = torch.relu(self.norms[0](self.first(pairs)))
        m = self.out(torch.relu(self.norms[1](self.middle(h)))).view(n, n)
        a = torch.sigmoid((m + m.t()) / 2)
        return a - torch.diag(a.diagonal())


def normalised(a: Tensor) -> Tensor:
    loops = a + torch.eye(len(a))
    inverse = loops.sum(1) ** -0.5
    return inverse[:, None] * loops * inverse[None]


class Hops:
    """The real nodes within two hops of the training nodes of a class, and the two steps of propagation."""

    def __init__(self, train: NodeSplit, c: int):
        v = train.graph.adjacency.v
        dense = torch.zeros(v, v)
        dense[tuple(train.graph.adjacency.edges)] = 1
        dense = normalised(dense)
        rows = train.index[train.labels == c]
        self.one = dense[rows].any(0).nonzero()[:, 0]
        self.two = dense[self.one].any(0).nonzero()[:, 0]
        self.second = dense[rows][:, self.one].to_sparse()
        self.first = dense[self.one][:, self.two].to_sparse()

    def logits(self, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the logits of the training nodes of the class."""
        h = features[self.two] @ weight
        return torch.sparse.mm(self.second, torch.sparse.mm(self.first, h)) + bias


def plain_updates(
    features: Tensor,
    hops: list[Hops],
    x: Tensor,
    edges: PairGenerator,
    start: Surrogate,
    sizes: list[int],
    knobs: GCond,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the gradients of the first update, and the losses of all updates."""
    x = x.clone().requires_grad_()
    weight, bias = (p.clone().requires_grad_() for p in (*start.weights, *start.biases))
    optimizer = torch.optim.Adam([x], lr=knobs.lr_features)
    of_surrogate = torch.optim.Adam([weight, bias], lr=knobs.lr_net)
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    first: list[Tensor] = []
    losses = []
    for _ in range(UPDATES):
        a = normalised(edges(x))
        total = torch.zeros(())
        for c, size in enumerate(sizes):
            real = hops[c].logits(features, weight, bias)
            loss = F.cross_entropy(real, torch.full((len(real),), c))
            target = torch.autograd.grad(loss, (weight, bias))
            syn = (a @ (a @ (x @ weight)) + bias)[labels == c]
            loss = F.cross_entropy(syn, labels[labels == c])
            found = torch.autograd.grad(loss, (weight, bias), create_graph=True)
            cosine = (found[0] * target[0]).sum(0) / (found[0].norm(dim=0) * target[0].norm(dim=0) + 1e-6)
            total = total + size / max(sizes) * (1 - cosine).sum()
        optimizer.zero_grad()
        edges.zero_grad()
        total.backward()
        losses.append(total.detach())
        if not first:
            first = [x.grad.clone(), edges.first.weight.grad.clone()]  # type: ignore[union-attr]
        optimizer.step()
        with torch.no_grad():
            a = normalised(edges(x))
        for _ in range(knobs.inner):
            loss = F.cross_entropy(a @ (a @ (x.detach() @ weight)) + bias, labels)
            of_surrogate.zero_grad()
            loss.backward()
            of_surrogate.step()
    return first, [torch.stack(losses)]


def our_updates(
    method: GCond,
    batches: list[tuple[Tensor, Tensor, None]],
    x: Tensor,
    edges: EdgeGenerator,
    start: Surrogate,
    sizes: list[int],
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the same from the parts of the method. `batches` are the training nodes of each class."""
    x = x.clone().requires_grad_()
    surrogate = Surrogate(*(tuple(p.clone() for p in parameters) for parameters in start))
    trainer = surrogate.optimizer(method.lr_net)
    optimizer = torch.optim.Adam([x], lr=method.lr_features)
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    first: list[Tensor] = []
    losses = []
    for update in range(UPDATES):
        parts = method._synthetic(x, edges, sizes)
        loss = method._match(surrogate, parts, labels.split(sizes), lambda c, _: batches[c], (0, update))
        optimizer.zero_grad()
        edges.zero_grad()
        loss.backward()
        losses.append(loss.detach())
        if not first:
            of_pairs = torch.cat([edges.sender.weight.grad, edges.receiver.weight.grad], 1)  # type: ignore[list-item]
            first = [x.grad.clone(), of_pairs]  # type: ignore[union-attr]
        optimizer.step()
        with torch.no_grad():
            ((z, hops),) = method._synthetic(x, edges, [len(x)])
            surrogate.train_(z, labels, method.inner, trainer, hops)
    return first, [torch.stack(losses)]


def gcond(root: str, rounds: int) -> list[dict[str, Any]]:
    method, real = method_of("gcond"), load(root)
    train = training_nodes(real)
    z_real, features, k = train.features(method.hops), train.graph.features, real.num_classes
    hops = [Hops(train, c) for c in range(k)]
    identity, zero = torch.eye(features.shape[1]), torch.zeros(features.shape[1])
    for c, of_class in enumerate(hops):
        assert torch.allclose(of_class.logits(features, identity, zero), z_real[train.labels == c], atol=1e-6)
    # a class has 20 training nodes, fewer than a batch, so no batches are drawn
    own = [train.labels == c for c in range(k)]
    batches = [(z_real[of_class], train.labels[of_class], None) for of_class in own]
    rows = []
    for ipc in IPCS:
        torch.manual_seed(ipc)
        members = [train.of_class(c)[:ipc] for c in range(k)]
        x = train.features()[torch.cat(members)]
        edges = EdgeGenerator(x.shape[1], method.edge_hidden)
        pairs = PairGenerator(edges)
        surrogate = Surrogate.draw(x.shape[1], k, None, torch.Generator().manual_seed(ipc))
        sizes = [ipc] * k
        state = x, edges, pairs, surrogate, sizes
        seconds, found = in_turns(
            rounds,
            {
                "ours": lambda s=state: our_updates(method, batches, s[0], s[1], s[3], s[4]),
                "plain": lambda s=state: plain_updates(features, hops, s[0], s[2], s[3], s[4], method),
            },
        )
        worst = [
            max(float((a - b).norm() / b.norm()) for a, b in zip(ours, plain, strict=True))
            for ours, plain in zip(found["ours"], found["plain"], strict=True)
        ]
        assert max(worst) < 1e-3, f"the gradients or losses differ by {worst}"
        per_update = {side: [s / UPDATES for s in took] for side, took in seconds.items()}
        rows.append(row_of(per_update, nodes=len(x), gradient_difference=worst[0], loss_difference=worst[1]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", default="data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "node_speed.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    figures = {"bonsai": bonsai(args.root, args.rounds), "gcond": gcond(args.root, args.rounds)}
    report.write(args.out, {"rounds": args.rounds, **figures}, threads=args.threads)


if __name__ == "__main__":
    main()
