"""GEOM: trajectory matching of nodes with curriculum experts and an expanding window (Zhang et al., ICML 2024)."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from dd_bench.api import (
    Architecture,
    DistillContext,
    ExpertBuffer,
    NodeSet,
    RealSet,
    State,
    classification_loss,
    parse,
    training_nodes,
)

from ._arguments import check_at_least, check_choice
from ._nodes.curriculum import Curriculum, CurriculumGradient
from ._nodes.trajectories import SMALLEST_RATE, Student, TrajectoryMatching
from ._trajectory.segments import Window


class Segment(NamedTuple):
    """Parameters of an expert `(p,)` at the start epoch, at the target epoch and after the last epoch."""

    start: Tensor
    target: Tensor
    last: Tensor


class GEOM(TrajectoryMatching):
    """SFGC with experts that see easy nodes first, a growing window of start epochs, and learned soft labels.

        experts: epoch e is a step on the easiest share of the training nodes, see `Curriculum`
        draw an expert and a start epoch t below min(stop, grow_from + iteration), rounded down to a multiple of `every`
        student = theta*_t, trained for `syn_steps` steps on all synthetic nodes and their labels
        loss = |student - theta*_{t+M}| / |theta*_t - theta*_{t+M}| + beta * KL(labels, theta*_last on the nodes)
        Adam step on the features, SGD steps on the labels and on lr

    M is `expert_epochs`, and theta*_last are the parameters after the last epoch of `recipe`. A training node is
    difficult if the classes of its neighbours differ, see `difficulty`. Soft labels are learned as logits that start at
    those of theta*_last of the first expert; if its class is wrong, the logit of the true class is raised to the
    largest one. Their softmax is stored. With `labels=hard`, the classes are fixed and the KL divergence is the
    cross-entropy.

    `target=fixed` compares every student with the parameters after epoch M, as GraphSlim's code does.

    Deviations from the released code:

    - Difficulties use the labels of training nodes only. The code uses those of all neighbours, of test nodes too. On
      Cora's public split, most training nodes have no training neighbour and are equally easy; they keep their order.
    - Learned labels are distributions. In the code, they are log-probabilities, whose sum changes.
    - Experts have the dropout of the run's network. The code has none (`model.dropout=0`).
    - Features start at random training nodes, not at those of k-center, and experts are drawn with replacement.
    - Snapshots are after a multiple of `every` epochs. In the code, they are one epoch later.
    - The last set is returned. The code selects the best one by the accuracy on validation nodes.
    - The step size stays above 1e-6.
    """

    citation = (
        "Zhang et al., Navigating Complexity: Toward Lossless Graph Condensation via Expanding Window Matching, "
        "ICML 2024"
    )
    smoke: ClassVar[dict[str, Any]] = {
        "iterations": 3,
        "syn_steps": 2,
        "expert_epochs": 3,
        "every": 2,
        "count": 2,
        "window.stop": 4,
        "window.grow_from": 1,
        "window.grow_over": 3,
        "curriculum.over": 4,
        "recipe.epochs": 6,
    }

    def __init__(
        self,
        *,
        window: dict[str, Any],
        every: int,
        target: str,
        curriculum: dict[str, Any],
        labels: str,
        lr_label: float,
        momentum_label: float,
        beta: float,
        **shared: Any,
    ):
        """See `conf/method/geom.yaml` for the arguments.

        Raises:
            ValueError: a value is unknown or out of range, or the experts are trained for too few epochs.
        """
        super().__init__(**shared)
        check_choice("target", target, ("moving", "fixed"))
        check_choice("labels", labels, ("soft", "hard"))
        check_at_least(1, every=every)
        if not beta >= 0:
            raise ValueError(f"method.beta must be >= 0, got {beta}. Example: method.beta=0.01")
        self.window, self.every = parse(Window, window, "method.window"), every
        self.curriculum = parse(Curriculum, curriculum, "method.curriculum")
        self.target, self.soft, self.beta = target, labels == "soft", beta
        self.lr_label, self.momentum_label = lr_label, momentum_label
        starts = range(self.window.first, self.window.stop)
        self.starts = sorted({t // every * every for t in starts})
        if target == "fixed" and self.starts[-1] >= self.expert_epochs:
            raise ValueError(
                f"method.target=fixed requires method.expert_epochs > {self.starts[-1]}, the last start epoch, got "
                f"{self.expert_epochs}. Use method.target=moving"
            )
        if (last := max(self._target(t) for t in self.starts)) > self.recipe.epochs:
            raise ValueError(
                f"the window requires epoch {last} of the experts, but they are trained for {self.recipe.epochs} "
                f"epochs. Use method.recipe.epochs={last}"
            )

    def epochs(self) -> set[int]:
        """See `TrajectoryMatching`."""
        return {*self.starts, *(self._target(t) for t in self.starts), self.recipe.epochs}

    def expert_gradient(self, real: RealSet) -> CurriculumGradient:
        """See `TrajectoryMatching`."""
        return CurriculumGradient.of(self.curriculum, training_nodes(real))

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`. The curriculum chooses nodes from a batch of all of them."""
        if reason := super().check_dataset(real, ipc, architecture):
            return reason
        if self.recipe.batch_size < len(real.train):
            return (
                f"method.recipe.batch_size must be >= {len(real.train)}, the number of training nodes, got "
                f"{self.recipe.batch_size}. Use method.recipe.batch_size=1000000"
            )
        return None

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> NodeSet:
        """See `Method`."""
        buffer, (x, y) = self.buffer(real, ctx), self.initial(real, ipc, ctx)
        net = ctx.network(ctx.architecture, "student")
        student = Student(net, len(x), self.syn_steps, self.gradient, self.soft)
        lr = torch.tensor(self.lr_student, device=ctx.device)
        optimizers = self.optimizers(x, lr)
        if self.soft:
            with torch.no_grad():
                y = repaired(student.logits(buffer.snapshot(0, self.recipe.epochs, ctx.device), x), y)
            optimizers["labels"] = torch.optim.SGD([y], self.lr_label, self.momentum_label)

        def distilled() -> NodeSet:
            return NodeSet.of(real, x, y.softmax(1) if self.soft else y)

        state: State = {"features": x, "labels": y, "lr": lr, **{f"{k}'s": v for k, v in optimizers.items()}}
        for step in ctx.steps(self.iterations, state, preview=distilled):
            ratio, knowledge, (x.grad, y.grad, lr.grad) = self.gradients(
                student, self._segment(buffer, step, ctx), x, y, lr
            )
            for optimizer in optimizers.values():
                optimizer.step()
            lr.clamp_(min=SMALLEST_RATE)
            ctx.log(loss=ratio, knowledge=knowledge, lr=lr.clone())
        return distilled()

    def gradients(
        self, student: Student, segment: Segment, x: Tensor, y: Tensor, lr: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor | None, Tensor]]:
        """Return the ratio of distances, the loss of the last epoch, and the gradients of x, y and lr.

        They are those of ratio + beta * loss. The gradient of y is None for hard labels.
        """
        squares = student.match(segment.start, segment.target, x, y, lr)
        ratio = squares.loss.sqrt()
        of_root = 0.5 / ratio  # the derivative of a root
        knowledge, of_x, of_y = knowledge_gradients(student, segment.last, x, y, self.soft)
        of_x = of_root * squares.features + self.beta * of_x
        if of_y is not None and squares.labels is not None:
            of_y = of_root * squares.labels + self.beta * of_y
        return ratio, knowledge, (of_x, of_y, of_root * squares.lr)

    def _target(self, start: int) -> int:
        """Return the target epoch for a start epoch."""
        return self.expert_epochs + (start if self.target == "moving" else 0)

    def _segment(self, buffer: ExpertBuffer, step: int, ctx: DistillContext) -> Segment:
        """Draw an expert and a start epoch."""
        host = ctx.stream("segment", step).host
        expert = int(torch.randint(len(buffer), (), generator=host))
        drawn = int(torch.randint(self.window.first, self.window.stop_at(step), (), generator=host))
        start = drawn // self.every * self.every
        epochs = (start, self._target(start), self.recipe.epochs)
        return Segment(*(buffer.snapshot(expert, epoch, ctx.device) for epoch in epochs))


def repaired(logits: Tensor, labels: Tensor) -> Tensor:
    """Return logits `(n, k)` in which the logit of each label `(n,)` is raised to the largest one of its row."""
    return logits.scatter(1, labels[:, None], logits.amax(1, keepdim=True))


def knowledge_gradients(
    student: Student, theta: Tensor, x: Tensor, y: Tensor, soft: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the loss of an expert `theta (p,)` on the set, and its gradients for features and soft labels.

    For soft labels, it is KL(softmax(y) || prediction), the mean over nodes; for classes, the cross-entropy.
    """
    x, y = x.detach().requires_grad_(), y.detach().requires_grad_(soft)
    logits = student.logits(theta, x)
    if not soft:
        loss = classification_loss(logits, y)
        return loss.detach(), torch.autograd.grad(loss, x)[0], None
    q, p = logits.log_softmax(1), y.log_softmax(1)
    loss = torch.nn.functional.kl_div(q, p, reduction="batchmean", log_target=True)
    of_x, of_y = torch.autograd.grad(loss, [x, y])
    return loss.detach(), of_x, of_y
