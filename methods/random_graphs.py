"""Random graphs of a budget of nodes or bytes: what a set of another size has to be compared with."""

from __future__ import annotations

from typing import Literal

import torch

from dd_bench.api import Architecture, DistillContext, GraphSet, Method, RealSet, training_graphs


class RandomGraphs(Method):
    """Draws training graphs class by class in turn, as long as the next one fits the budget.

    `ipc` bounds the graphs of a class, and `amount` the nodes or the stored bytes of all of them together. A graph
    that does not fit is passed over for the next of its class; the set is at least one graph of each class.
    """

    modalities = ("graph",)
    citation = "uniform random selection"

    def __init__(self, *, budget: Literal["nodes", "bytes"], amount: int):
        """Takes the budget.

        Raises:
            ValueError: it is of neither kind, or not positive.
        """
        if budget not in ("nodes", "bytes") or amount < 1:
            raise ValueError(
                f"method.budget={budget}, method.amount={amount}: wanted nodes or bytes, and >= 1"
            )
        self.budget, self.amount = budget, amount

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture):
            return reason
        split, adds = training_graphs(real), self._least(real)
        smallest = [min(split.of_class(c).tolist(), key=adds.__getitem__) for c in range(real.num_classes)]
        least = self._cost(real, torch.tensor(smallest))
        if least > self.amount:
            return f"method.amount={self.amount} {self.budget} is less than one graph of each class ({least})"
        return None

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> GraphSet:
        """See `Method`."""
        split = training_graphs(real)
        least = self._least(real)
        queues = []
        for c in range(real.num_classes):
            members = split.of_class(c)
            order = torch.randperm(len(members), generator=ctx.generator("graphs", c), device=members.device)
            queues.append(members[order].tolist())
        chosen: list[list[int]] = [[] for _ in queues]
        for c, queue in enumerate(queues):  # one of each class first, the smallest where nothing else fits
            rest = [min(q, key=least.__getitem__) for q in queues[c + 1 :]]
            others = [i for found in chosen for i in found] + rest
            first = self._next(real, queue, others, least)
            if first is None:
                first = min(queue, key=least.__getitem__)
            chosen[c].append(first)
            queue.remove(first)
        while any(queues):
            for c, queue in enumerate(queues):
                taken = [j for found in chosen for j in found]
                i = self._next(real, queue, taken, least) if len(chosen[c]) < ipc else None
                if i is None:
                    queue.clear()
                    continue
                chosen[c].append(i)
                del queue[: queue.index(i) + 1]
        return GraphSet.coreset(real, torch.tensor([i for found in chosen for i in found]))

    def _next(self, real: RealSet, queue: list[int], taken: list[int], least: list[int]) -> int | None:
        """Returns the first of the queue that fits beside those taken; None: none does."""
        left = self.amount - (self._cost(real, torch.tensor(taken)) if taken else 0)
        near = (i for i in queue if least[i] <= left)  # what an exact count is worth taking of
        if self.budget == "nodes":
            return next(near, None)
        return next((i for i in near if self._cost(real, torch.tensor([*taken, i])) <= self.amount), None)

    def _least(self, real: RealSet) -> list[int]:
        """Returns of each training graph its nodes, or the bytes that it adds to a set at the least."""
        split = training_graphs(real)
        nodes = split.graphs.num_nodes
        if self.budget == "nodes":
            return nodes.tolist()
        bonds = torch.bincount(split.graphs.graph_of[split.graphs.edges[0]], minlength=len(nodes)) // 2
        of_node, of_edge = len(split.spec.nodes), 2 + len(split.spec.edges)
        return (nodes * of_node + bonds * of_edge + 2).tolist()  # and a byte of size and one of label

    def _cost(self, real: RealSet, index: torch.Tensor) -> int:
        """Returns the nodes or the stored bytes of the training graphs `index`."""
        if self.budget == "nodes":
            return int(training_graphs(real).graphs.num_nodes[index].sum())
        return sum(GraphSet.coreset(real, index).stored_bytes().values())
