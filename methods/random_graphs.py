"""Random graphs of a budget of nodes or bytes: what a set of another size has to be compared with."""

from __future__ import annotations

from typing import Literal

import torch

from dd_bench.architecture import Architecture
from dd_bench.base import Context, Method
from dd_bench.real import RealSet
from dd_bench.real_graphs import graphs_of
from dd_bench.synthetic_graphs import GraphSet


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

    def unsupported(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().unsupported(real, ipc, architecture):
            return reason
        split = graphs_of(real)
        smallest = torch.stack(
            [
                split.of_class(c)[split.graphs.num_nodes[split.of_class(c)].argmin()]
                for c in range(real.num_classes)
            ]
        )
        least = self._cost(real, smallest)
        if least > self.amount:
            return f"method.amount={self.amount} {self.budget} is less than one graph of each class ({least})"
        return None

    def distill(self, real: RealSet, ipc: int, ctx: Context) -> GraphSet:
        """See `Method`."""
        split = graphs_of(real)
        queues = []
        for c in range(real.num_classes):
            members = split.of_class(c)
            order = torch.randperm(len(members), generator=ctx.generator("graphs", c), device=members.device)
            queues.append(members[order].tolist())
        chosen: list[list[int]] = [[] for _ in queues]
        for c, queue in enumerate(queues):  # one of each class first, the smallest where nothing else fits
            rest = [min(q, key=lambda i: int(split.graphs.num_nodes[i])) for q in queues[c + 1 :]]
            sizes = sorted(queue, key=lambda i: int(split.graphs.num_nodes[i]))
            others = [i for found in chosen for i in found] + rest
            first = next((i for i in queue if self._fits(real, [*others, i])), sizes[0])
            chosen[c].append(first)
            queue.remove(first)
        while any(queues):
            for c, queue in enumerate(queues):
                if len(chosen[c]) >= ipc:
                    queue.clear()
                while queue:
                    i = queue.pop(0)
                    taken = [j for found in chosen for j in found]
                    if self._fits(real, [*taken, i]):
                        chosen[c].append(i)
                        break
                    smallest = min([i, *queue], key=lambda j: int(split.graphs.num_nodes[j]))
                    if not self._fits(real, [*taken, smallest]):
                        queue.clear()
        return GraphSet.coreset(real, torch.tensor([i for found in chosen for i in found]))

    def _fits(self, real: RealSet, index: list[int]) -> bool:
        return self._cost(real, torch.tensor(index)) <= self.amount

    def _cost(self, real: RealSet, index: torch.Tensor) -> int:
        """Returns the nodes or the stored bytes of the training graphs `index`."""
        if self.budget == "nodes":
            return int(graphs_of(real).graphs.num_nodes[index].sum())
        return sum(GraphSet.coreset(real, index).stored_bytes().values())
