"""SFGC: match training trajectories of nodes without edges to those on the real graph (Zheng et al., NeurIPS 2023)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import (
    GRADIENTS,
    Adjacency,
    Architecture,
    DistillContext,
    EagerDifferentiator,
    EpochTarget,
    ExpertBuffer,
    FunctionalNetwork,
    InnerLoop,
    InnerStep,
    Method,
    NodeGraph,
    NodeSet,
    RealSet,
    Recipe,
    State,
    batch_coupled,
    classification_loss,
    experts,
    parse,
    training_nodes,
)

from ._arguments import check_at_least
from ._nodes.quota import check_quota, initial_nodes, quota, quota_labels

SMALLEST_RATE = 1e-6


class SFGC(Method):
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

    modalities = ("node",)
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

    def __init__(
        self,
        *,
        iterations: int,
        syn_steps: int,
        expert_epochs: int,
        stop: int,
        every: int,
        lr_features: float,
        lr_student: float,
        lr_lr: float,
        momentum_lr: float,
        gradient: str,
        count: int,
        recipe: dict[str, Any],
        nodes: int | None,
    ):
        """See `conf/method/sfgc.yaml` for the arguments.

        Raises:
            ValueError: a value is unknown or out of range.
        """
        if gradient not in GRADIENTS:
            raise ValueError(f"method.gradient must be one of {', '.join(GRADIENTS)}, got {gradient!r}")
        check_at_least(
            1, syn_steps=syn_steps, expert_epochs=expert_epochs, stop=stop, every=every, count=count
        )
        if not lr_student >= SMALLEST_RATE:
            raise ValueError(
                f"method.lr_student must be >= {SMALLEST_RATE}, got {lr_student}. Example: method.lr_student=0.5"
            )
        self.iterations, self.syn_steps, self.expert_epochs = iterations, syn_steps, expert_epochs
        self.starts = range(0, stop, every)
        self.lr_features, self.lr_student, self.lr_lr, self.momentum_lr = (
            lr_features,
            lr_student,
            lr_lr,
            momentum_lr,
        )
        self.gradient, self.count, self.nodes = gradient, count, nodes
        self.recipe = parse(Recipe, recipe, "method.recipe")

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture) or check_quota(real, ipc, self.nodes):
            return reason
        if batch_coupled(architecture.fresh(0, torch.device("cpu"))):
            return f"SFGC does not support networks with BatchNorm, such as {architecture.title}. Use model=node_gcn"
        return None

    def prepare(self, real: RealSet, ctx: DistillContext) -> None:
        """Train the experts."""
        self.buffer(real, ctx)

    def buffer(self, real: RealSet, ctx: DistillContext) -> ExpertBuffer:
        """Return the expert buffer; the experts are trained if they are not cached."""
        epochs = {*self.starts, *(t + self.expert_epochs for t in self.starts)}
        return experts(
            real,
            ctx.architecture,
            self.recipe,
            ctx,
            count=self.count,
            epochs=tuple(sorted(epochs)),
            dtype="float32",
            gradient_rule=None,
            exact=True,
        )

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> NodeSet:
        """See `Method`."""
        buffer, flat = self.buffer(real, ctx), FunctionalNetwork(ctx.network(ctx.architecture, "student"))
        sizes = quota(real.train.counts, ipc, self.nodes)
        labels = quota_labels(sizes, ctx.device)
        x = training_nodes(real).features()[initial_nodes(real, sizes, ctx)].clone()
        lr = torch.tensor(self.lr_student, device=ctx.device)
        optimizers = {
            "features": torch.optim.Adam([x], lr=self.lr_features),
            "lr": torch.optim.SGD([lr], lr=self.lr_lr, momentum=self.momentum_lr),
        }
        no_edges = Adjacency(len(x), torch.zeros(2, 0, dtype=torch.int64, device=ctx.device))

        def loss(theta: Tensor, features: Tensor, y: Tensor) -> Tensor:
            return classification_loss(flat(theta, NodeGraph(features, no_edges)), y)  # type: ignore[arg-type]

        steps = [InnerStep(torch.arange(len(x), device=ctx.device), lambda batch: batch)] * self.syn_steps
        differentiator, gradients = EagerDifferentiator(loss, learn_labels=False), GRADIENTS[self.gradient]
        state: State = {"features": x, "lr": lr, **{f"{k}'s": v for k, v in optimizers.items()}}
        for step in ctx.steps(self.iterations, state, preview=lambda: NodeSet.of(real, x, labels)):
            start, target = self._segment(buffer, step, ctx)
            inner = InnerLoop(differentiator, start, steps, [EpochTarget(self.syn_steps, target)])
            grads = gradients(inner, x, labels, lr)
            x.grad, lr.grad = grads.images, grads.lr
            for optimizer in optimizers.values():
                optimizer.step()
            lr.clamp_(min=SMALLEST_RATE)
            ctx.log(loss=grads.loss, lr=lr.clone())
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
