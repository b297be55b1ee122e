"""Trajectory matching of nodes without edges: experts on the real graph, and a student on the synthetic nodes."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

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
    Network,
    NodeGraph,
    RealSet,
    Recipe,
    batch_coupled,
    classification_loss,
    experts,
    parse,
    training_nodes,
)
from dd_bench.methods._arguments import check_at_least, check_choice

from .curriculum import CurriculumGradient
from .quota import check_quota, initial_nodes, quota, quota_labels

SMALLEST_RATE = 1e-6


class TrajectoryMatching(Method):
    """Base class of methods whose student follows experts: arguments, experts, initial nodes and optimisers.

    Experts are networks of the run's architecture on the real graph. A subclass names the epochs that it needs, and
    the gradient of an expert's step if it is not that of the loss on all training nodes.
    """

    modalities = ("node",)

    def __init__(
        self,
        *,
        iterations: int,
        syn_steps: int,
        expert_epochs: int,
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
        check_choice("gradient", gradient, tuple(GRADIENTS))
        check_at_least(1, syn_steps=syn_steps, expert_epochs=expert_epochs, count=count)
        if not lr_student >= SMALLEST_RATE:
            raise ValueError(
                f"method.lr_student must be >= {SMALLEST_RATE}, got {lr_student}. Example: method.lr_student=0.5"
            )
        self.iterations, self.syn_steps, self.expert_epochs = iterations, syn_steps, expert_epochs
        self.lr_features, self.lr_student = lr_features, lr_student
        self.lr_lr, self.momentum_lr = lr_lr, momentum_lr
        self.gradient, self.count, self.nodes = gradient, count, nodes
        self.recipe = parse(Recipe, recipe, "method.recipe")

    @abstractmethod
    def epochs(self) -> set[int]:
        """Return the epochs whose parameters are stored; 0 is the initialisation."""

    def expert_gradient(self, real: RealSet) -> CurriculumGradient | None:
        """Return what replaces the gradient of an expert's loss, or None."""
        return None

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture) or check_quota(real, ipc, self.nodes):
            return reason
        if batch_coupled(architecture.fresh(0, torch.device("cpu"))):
            return (
                f"{type(self).__name__} does not support networks with BatchNorm, such as {architecture.title}. "
                "Use model=node_gcn"
            )
        return None

    def prepare(self, real: RealSet, ctx: DistillContext) -> None:
        """Train the experts."""
        self.buffer(real, ctx)

    def buffer(self, real: RealSet, ctx: DistillContext) -> ExpertBuffer:
        """Return the expert buffer; the experts are trained if they are not cached."""
        return experts(
            real,
            ctx.architecture,
            self.recipe,
            ctx,
            count=self.count,
            epochs=tuple(sorted(self.epochs())),
            dtype="float32",
            gradient_rule=self.expert_gradient(real),
            exact=True,
        )

    def initial(self, real: RealSet, ipc: int, ctx: DistillContext) -> tuple[Tensor, Tensor]:
        """Return the features `(n, d)` and classes `(n,)` of random training nodes."""
        sizes = quota(real.train.counts, ipc, self.nodes)
        x = training_nodes(real).features()[initial_nodes(real, sizes, ctx)].clone()
        return x, quota_labels(sizes, ctx.device)

    def optimizers(self, x: Tensor, lr: Tensor) -> dict[str, torch.optim.Optimizer]:
        """Return Adam for the features, and SGD for the student's learning rate `lr`, 0-d."""
        return {
            "features": torch.optim.Adam([x], lr=self.lr_features),
            "lr": torch.optim.SGD([lr], lr=self.lr_lr, momentum=self.momentum_lr),
        }


class Match(NamedTuple):
    """`|student - target|^2 / |start - target|^2`, 0-d, and its derivatives; `labels` is None for classes."""

    loss: Tensor
    features: Tensor
    lr: Tensor
    labels: Tensor | None


class Student:
    """A network without dropout on `n` nodes without edges, where every network is an MLP.

    Labels are classes `(n,)`; or logits `(n, k)` with `soft`, which is the network's loss against their softmax.
    """

    def __init__(self, net: Network, n: int, steps: int, gradient: str, soft: bool = False):
        """Take the network, the number of nodes and of training steps, and a key of `GRADIENTS`."""
        self._flat = FunctionalNetwork(net)
        device = next(net.parameters()).device
        self._no_edges = Adjacency.empty(n, device)
        self._steps = [InnerStep(torch.arange(n, device=device), lambda batch: batch)] * steps
        self._gradients = GRADIENTS[gradient]

        def loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return classification_loss(self.logits(theta, x), y.softmax(1) if soft else y)

        self._differentiator = EagerDifferentiator(loss, learn_labels=soft)

    def logits(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return the logits `(n, k)` of the nodes with features `x (n, d)`, for the parameters `theta (p,)`."""
        return self._flat(theta, NodeGraph(x, self._no_edges))  # type: ignore[arg-type]  # a graph

    def match(self, start: Tensor, target: Tensor, x: Tensor, labels: Tensor, lr: Tensor) -> Match:
        """Train from `start (p,)` on all nodes with the learning rate `lr`, and compare with `target (p,)`."""
        targets = [EpochTarget(len(self._steps), target)]
        inner = InnerLoop(self._differentiator, start, self._steps, targets)
        grads = self._gradients(inner, x, labels, lr)
        return Match(grads.loss, grads.images, grads.lr, grads.labels)
