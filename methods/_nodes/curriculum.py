"""Curricula over the training nodes of a graph: easy nodes first, by the labels of their neighbours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dd_bench.api import Loss, NodeGraph, NodeSplit, Target


class Curriculum(BaseModel):
    """The share of the training nodes that a step uses, see `share`.

    Attributes:
        start: share of the first step, l.
        over: number T of steps until all nodes are used.
        pacing: how the share grows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: float = Field(gt=0, le=1)
    over: int = Field(ge=1)
    pacing: Literal["linear", "root", "geometric"]

    def share(self, step: int) -> float:
        """Return the share of step t, 0-based, in (0, 1].

        It is l + (1 - l) t / T (`linear`), the root of l^2 + (1 - l^2) t / T (`root`), or l^(1 - t / T) (`geometric`),
        and 1 from step T on.
        """
        if step >= self.over:
            return 1.0
        done = step / self.over
        if self.pacing == "linear":
            return self.start + (1 - self.start) * done
        if self.pacing == "root":
            return float((self.start**2 + (1 - self.start**2) * done) ** 0.5)
        return float(self.start ** (1 - done))


def difficulty(train: NodeSplit) -> Tensor:
    """Return the entropy of the classes of each training node and its neighbours, in nats, float64 `(n,)`.

    Neighbours without a label in this split do not count. Nodes with the same numbers of neighbours of each kind have
    exactly the same entropy, whatever the classes are.
    """
    sender, receiver = train.graph.adjacency.subgraph(train.index).edges
    counts = nn.functional.one_hot(train.labels, train.num_classes).double()
    counts.index_put_((receiver, train.labels[sender]), counts.new_ones(()), accumulate=True)
    shares = (counts / counts.sum(1, keepdim=True)).sort(1).values
    entropy: Tensor = torch.special.entr(shares).sum(1)
    return entropy


@dataclass(frozen=True)
class CurriculumGradient:
    """The gradient of the mean loss over the easiest share of the training nodes.

    Attributes:
        curriculum: the share of each epoch.
        order: positions of the training nodes, the easiest first, `(n,)`.
    """

    curriculum: Curriculum
    order: Tensor

    @classmethod
    def of(cls, curriculum: Curriculum, train: NodeSplit) -> CurriculumGradient:
        """Sort the nodes by `difficulty`; equally difficult ones stay in the order of the split."""
        return cls(curriculum, difficulty(train).argsort(stable=True))

    def chosen(self, epoch: int) -> Tensor:
        """Return the positions of the nodes that are used in an epoch, 0-based; at least one."""
        return self.order[: max(1, int(self.curriculum.share(epoch) * len(self.order)))]

    def __call__(
        self, net: nn.Module, loss: Loss, x: Tensor | NodeGraph, target: Target, raw: Tensor, epoch: int
    ) -> None:
        """Set the gradients of `net`; `x` is a view of the graph at all training nodes, in the order of the split."""
        assert isinstance(x, NodeGraph) and x.nodes is not None
        chosen = self.chosen(epoch)
        loss(net, x.at(x.nodes[chosen]), target[chosen]).backward()  # type: ignore[arg-type]  # a graph

    def describe(self) -> dict[str, Any]:
        """Return the values that identify the curriculum in cache keys."""
        order = hashlib.sha256(self.order.cpu().numpy().tobytes()).hexdigest()
        return {"curriculum": self.curriculum.model_dump(mode="json"), "order": order}

    def compiled(self) -> CurriculumGradient:
        """Return `self`. Training on a graph is not compiled."""
        return self
