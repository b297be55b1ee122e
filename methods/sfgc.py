"""SFGC: match training trajectories of nodes without edges to those on the real graph (Zheng et al., NeurIPS 2023)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import DistillContext, ExpertBuffer, NodeSet, RealSet, State

from ._arguments import check_at_least
from ._nodes.trajectories import SMALLEST_RATE, Student, TrajectoryMatching


class SFGC(TrajectoryMatching):
    """An iteration trains a student on the synthetic nodes from an epoch of an expert towards a later epoch.

        draw an expert and a start epoch t, a multiple of `every` below `stop`
        student = theta*_t, the expert's parameters after epoch t
        for i in range(syn_steps): student = student - lr * gradient of the loss on all synthetic nodes
        loss = |student - theta*_{t+M}|^2 / |theta*_t - theta*_{t+M}|^2
        Adam step on the features, SGD step on lr

    M is `expert_epochs`. Experts are networks of the run's architecture on the real graph; an epoch is one step on all
    training nodes. The student has the same architecture and no edges, so it is an MLP, without dropout.

    Deviations from the released code:

    - The last set is returned. The code selects the one with the best score of a kernel on validation nodes.
    - Features start at random training nodes, not at those of k-center.
    - The start epoch counts epochs. In the code, it is also used as the number of a snapshot, of every tenth epoch.
    - The step size stays above 1e-6.
    """

    citation = (
        "Zheng et al., Structure-free Graph Condensation: From Large-scale Graphs to Condensed Graph-free Data, "
        "NeurIPS 2023"
    )
    smoke: ClassVar[dict[str, Any]] = {
        "iterations": 3,
        "syn_steps": 2,
        "expert_epochs": 3,
        "stop": 3,
        "every": 2,
        "count": 2,
    }

    def __init__(self, *, stop: int, every: int, **shared: Any):
        """See `conf/method/sfgc.yaml` for the arguments.

        Raises:
            ValueError: a value is unknown or out of range.
        """
        super().__init__(**shared)
        check_at_least(1, stop=stop, every=every)
        self.starts = range(0, stop, every)

    def epochs(self) -> set[int]:
        """See `TrajectoryMatching`."""
        return {*self.starts, *(t + self.expert_epochs for t in self.starts)}

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> NodeSet:
        """See `Method`."""
        buffer, (x, labels) = self.buffer(real, ctx), self.initial(real, ipc, ctx)
        student = Student(ctx.network(ctx.architecture, "student"), len(x), self.syn_steps, self.gradient)
        lr = torch.tensor(self.lr_student, device=ctx.device)
        optimizers = self.optimizers(x, lr)
        state: State = {"features": x, "lr": lr, **{f"{k}'s": v for k, v in optimizers.items()}}
        for step in ctx.steps(self.iterations, state, preview=lambda: NodeSet.of(real, x, labels)):
            start, target = self._segment(buffer, step, ctx)
            match = student.match(start, target, x, labels, lr)
            x.grad, lr.grad = match.features, match.lr
            for optimizer in optimizers.values():
                optimizer.step()
            lr.clamp_(min=SMALLEST_RATE)
            ctx.log(loss=match.loss, lr=lr.clone())
        return NodeSet.of(real, x, labels)

    def _segment(self, buffer: ExpertBuffer, step: int, ctx: DistillContext) -> tuple[Tensor, Tensor]:
        """Draw an expert and a start epoch, and return its parameters at the start and at the target epoch."""
        host = ctx.stream("segment", step).host
        expert = int(torch.randint(len(buffer), (), generator=host))
        epoch = self.starts[int(torch.randint(len(self.starts), (), generator=host))]
        return (
            buffer.snapshot(expert, epoch, ctx.device),
            buffer.snapshot(expert, epoch + self.expert_epochs, ctx.device),
        )
