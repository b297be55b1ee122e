"""Random graphs within a node or byte budget, the baseline of methods whose set size is not fixed by `ipc`."""

from __future__ import annotations

from typing import Literal

import torch

from dd_bench.api import Architecture, DistillContext, GraphSet, Method, RealSet, training_graphs


class RandomGraphs(Method):
    """Draw training graphs from the classes in turn until no further graph fits the budget.

    `ipc` bounds the number of graphs per class. `amount` bounds the number of nodes or stored bytes of the whole set. A
    graph that exceeds the budget is skipped. Every class gets at least one graph.
    """

    modalities = ("graph",)
    citation = "uniform random selection"

    def __init__(self, *, budget: Literal["nodes", "bytes"], amount: int):
        """Take the unit and the size of the budget.

        Raises:
            ValueError: `budget` is unknown, or `amount` is less than 1.
        """
        if budget not in ("nodes", "bytes"):
            raise ValueError(
                f"method.budget must be nodes or bytes, got {budget}. Example: method.budget=nodes"
            )
        if amount < 1:
            raise ValueError(f"method.amount must be >= 1, got {amount}. Example: method.amount=100")
        self.budget, self.amount = budget, amount

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture):
            return reason
        split, lower_bounds = training_graphs(real), self._lower_bounds(real)
        smallest = [
            min(split.of_class(c).tolist(), key=lower_bounds.__getitem__) for c in range(real.num_classes)
        ]
        minimum = self._cost(real, torch.tensor(smallest))
        if minimum > self.amount:
            return (
                f"method.amount must be >= {minimum} {self.budget} for one graph per class, got {self.amount}. "
                f"Example: method.amount={minimum}"
            )
        return None

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> GraphSet:
        """See `Method`."""
        split = training_graphs(real)
        lower_bounds = self._lower_bounds(real)
        queues = []
        for c in range(real.num_classes):
            members = split.of_class(c)
            order = torch.randperm(len(members), generator=ctx.generator("graphs", c), device=members.device)
            queues.append(members[order].tolist())
        chosen: list[list[int]] = [[] for _ in queues]
        # First select one graph of each class, such that the smallest graph of each later class still fits the budget.
        for c, queue in enumerate(queues):
            reserved = [min(q, key=lower_bounds.__getitem__) for q in queues[c + 1 :]]
            others = [i for indices in chosen for i in indices] + reserved
            first = self._next(real, queue, others, lower_bounds)
            if first is None:
                first = min(queue, key=lower_bounds.__getitem__)
            chosen[c].append(first)
            queue.remove(first)
        while any(queues):
            for c, queue in enumerate(queues):
                taken = [j for indices in chosen for j in indices]
                i = self._next(real, queue, taken, lower_bounds) if len(chosen[c]) < ipc else None
                if i is None:
                    queue.clear()
                    continue
                chosen[c].append(i)
                del queue[: queue.index(i) + 1]
        return GraphSet.coreset(real, torch.tensor([i for indices in chosen for i in indices]))

    def _next(self, real: RealSet, queue: list[int], taken: list[int], lower_bounds: list[int]) -> int | None:
        """Return the first graph of the queue that fits the budget together with `taken`, or None."""
        left = self.amount - (self._cost(real, torch.tensor(taken)) if taken else 0)
        candidates = (i for i in queue if lower_bounds[i] <= left)
        if self.budget == "nodes":
            return next(candidates, None)  # the bound is exact for nodes
        return next(
            (i for i in candidates if self._cost(real, torch.tensor([*taken, i])) <= self.amount), None
        )

    def _lower_bounds(self, real: RealSet) -> list[int]:
        """Return, for each training graph, its number of nodes, or a lower bound of the bytes that it adds to a set."""
        split = training_graphs(real)
        nodes = split.graphs.num_nodes
        if self.budget == "nodes":
            return nodes.tolist()
        bonds = torch.bincount(split.graphs.graph_of[split.graphs.edges[0]], minlength=len(nodes)) // 2
        node_bytes, edge_bytes = len(split.spec.nodes), 2 + len(split.spec.edges)
        return (nodes * node_bytes + bonds * edge_bytes + 2).tolist()  # one byte each for size and label

    def _cost(self, real: RealSet, index: torch.Tensor) -> int:
        """Return the number of nodes, or of stored bytes, of the training graphs `index`."""
        if self.budget == "nodes":
            return int(training_graphs(real).graphs.num_nodes[index].sum())
        return sum(GraphSet.coreset(real, index).stored_bytes().values())
