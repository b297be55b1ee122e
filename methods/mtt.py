"""MTT: match training trajectories on synthetic images to expert trajectories (Cazenavette et al., CVPR 2022)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import (
    GRADIENTS,
    Architecture,
    Augment,
    CompiledDifferentiator,
    Differentiator,
    DistillContext,
    Diverged,
    EagerDifferentiator,
    ExpertBuffer,
    FunctionalNetwork,
    ImageSet,
    InnerLoop,
    Method,
    RealSet,
    batch_coupled,
    check_class_sizes,
    class_labels,
    classification_loss,
    initial_images,
    parse,
    random_index,
    tile,
    uses_compilation,
)

from ._arguments import check_at_least
from ._trajectory.experts import ExpertSettings
from ._trajectory.init import INITS, LABELS, cluster_index, correct_index, mean_logits
from ._trajectory.segments import Segment, Window, balance, draw_segment, perturbed
from ._trajectory.views import Views

SMALLEST_RATE = 1e-6
MAX_SKIPS = 100
"""Consecutive skipped iterations after which a run counts as diverged."""


class MTT(Method):
    """Each iteration draws a segment of an expert trajectory, trains a student along it, and updates the images.

        draw an expert and a start epoch t
        student = theta*_t, the expert's parameters after epoch t
        for i in range(N): student = student - lr * gradient of the loss on an augmented batch of synthetic images
        loss = |student - theta*_{t+M}|^2 / |theta*_t - theta*_{t+M}|^2
        SGD step on the images, on lr and, if they are learned, on the labels

    N is `syn_steps` and M is `expert_epochs`. The loss is differentiated through all N steps. FTD, AST, TESLA and DATM
    are configurations of this class.

    An iteration waits for the device once, after its N steps, to read the loss, which decides whether the iteration is
    skipped (`skip_above`), and the step size.

    Deviations from the released code:

    - The step size `lr` stays positive. A decrease d is applied as the factor `exp(-d / lr)`, which equals the plain
      step to first order. A step size below 1e-6 raises an error.
    - If the batch size does not divide the number of images, the incomplete batch of each epoch is dropped. The
      released code uses it as the first batch.
    - There are 5000 iterations instead of 5001.
    - Experts are trained only up to the last epoch that the window uses.
    - With `canvas`, fresh networks are trained on the canvas^2 tiles of an image, and it counts as canvas^2 images of
      the IPC. The released code draws new random crops for each batch, and counts it as one image.
    - BatchNorm networks are not supported, because the snapshots of an expert contain no running statistics. The papers
      use InstanceNorm only.
    """

    citation = "Cazenavette et al., Dataset Distillation by Matching Training Trajectories, CVPR 2022"
    smoke: ClassVar[dict[str, Any]] = {
        "iterations": 2,
        "syn_steps": 3,
        "expert_epochs": 1,
        "window.stop": 1,
        "experts.count": 2,
        "experts.recipe.epochs": 1,
        "experts.recipe.batch_size": 16,
    }

    def __init__(
        self,
        *,
        iterations: int,
        init: str,
        labels: str,
        syn_steps: int,
        expert_epochs: int,
        window: dict[str, Any],
        batch_syn: int | None,
        lr_img: float,
        momentum_img: float,
        lr_teacher: float,
        lr_lr: float,
        momentum_lr: float,
        lr_label: float,
        momentum_label: float,
        momentum_syn: float,
        gradient: str,
        intermediate: str,
        balance: bool,
        perturb: float,
        ema: float,
        skip_above: float | None,
        canvas: int,
        augment: str,
        experts: dict[str, Any],
    ):
        """See `conf/method/mtt.yaml` for the arguments.

        Raises:
            ValueError: A value is unknown or out of range, or two values contradict each other.
        """
        for name, choice, choices in (
            ("init", init, INITS),
            ("labels", labels, LABELS),
            ("gradient", gradient, tuple(GRADIENTS)),
            ("intermediate", intermediate, ("none", "constant", "ramp")),
        ):
            if choice not in choices:
                raise ValueError(f"method.{name} must be one of {', '.join(choices)}, got {choice!r}")
        check_at_least(
            1, syn_steps=syn_steps, expert_epochs=expert_epochs, batch_syn=batch_syn, canvas=canvas
        )
        if intermediate != "none" and syn_steps < expert_epochs:
            raise ValueError(
                f"method.intermediate={intermediate} requires at least one step per expert epoch, got syn_steps="
                f"{syn_steps}. Use method.syn_steps={expert_epochs} or more, or method.intermediate=none"
            )
        if not lr_teacher >= SMALLEST_RATE:
            raise ValueError(
                f"method.lr_teacher must be >= {SMALLEST_RATE}, got {lr_teacher}. Example: method.lr_teacher=0.01"
            )
        for name, value in (
            ("lr_img", lr_img),
            ("lr_lr", lr_lr),
            ("lr_label", lr_label),
            ("perturb", perturb),
        ):
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"method.{name} must be a number >= 0, got {value}. Example: method.{name}=0.0"
                )
        for name, value in (
            ("momentum_syn", momentum_syn),
            ("momentum_img", momentum_img),
            ("momentum_lr", momentum_lr),
            ("momentum_label", momentum_label),
            ("ema", ema),
        ):
            if not 0 <= value < 1:
                raise ValueError(f"method.{name} must be in [0, 1), got {value}. Example: method.{name}=0.0")
        try:
            Augment(augment, flip_allowed=True)
        except ValueError as error:
            raise ValueError(f"method.augment={augment}: {error}") from error
        if skip_above is not None and not skip_above > 0:
            raise ValueError(
                f"method.skip_above must be > 0 or null, got {skip_above}. Example: method.skip_above=1.0"
            )
        self.iterations, self.init, self.labels = iterations, init, labels
        self.syn_steps, self.expert_epochs, self.batch_syn = syn_steps, expert_epochs, batch_syn
        self.window = parse(Window, window, "method.window")
        self.experts = parse(ExpertSettings, experts, "method.experts")
        self.lr_img, self.momentum_img, self.lr_teacher = lr_img, momentum_img, lr_teacher
        self.lr_lr, self.momentum_lr = lr_lr, momentum_lr
        self.lr_label, self.momentum_label, self.momentum_syn = lr_label, momentum_label, momentum_syn
        self.gradient, self.intermediate, self.balance = gradient, intermediate, balance
        self.perturb, self.ema, self.skip_above = perturb, ema, skip_above
        self.canvas, self.augment = canvas, augment
        self.last_epoch = self.window.stop - 1 + expert_epochs
        self.experts.check(self.last_epoch, self._init_epoch())

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture):
            return reason
        if batch_coupled(architecture.fresh(0, torch.device("cpu"))):
            return (
                f"{architecture.title} has BatchNorm, but expert snapshots do not contain its running statistics. "
                "Use model.norm=instancenorm"
            )
        if self.canvas > 1 and real.preprocess.kind == "zca":
            return (
                f"method.canvas={self.canvas} crops larger images, but ZCA is fitted to one image size. "
                "Use dataset.preprocess=normalise or method.canvas=1"
            )
        if self.canvas > 1 and (self.labels != "hard" or self.init not in ("real", "noise")):
            return (
                "method.canvas > 1 requires method.labels=hard, and method.init=real or method.init=noise, got "
                f"method.labels={self.labels} and method.init={self.init}. Use method.canvas=1 to keep these values"
            )
        if ipc % self.canvas**2:
            return (
                f"with method.canvas={self.canvas}, a stored image counts as {self.canvas**2} images, so ipc must be a "
                f"multiple of {self.canvas**2}, got {ipc}. Example: ipc={self.canvas**2}"
            )
        if self.init == "noise":
            return None
        return check_class_sizes(real, ipc, ipc, self.init if self.init == "real" else None)

    def prepare(self, real: RealSet, ctx: DistillContext) -> None:
        """Train the experts."""
        self.buffer(real, ctx)

    def buffer(self, real: RealSet, ctx: DistillContext) -> ExpertBuffer:
        """Return the expert buffer; the experts are trained if they are not cached."""
        return self.experts.buffer(real, self.window.first, self.last_epoch, self._init_epoch(), ctx)

    def _init_epoch(self) -> int | None:
        """Return the expert epoch that initialises images or labels, or None if no expert is used for that."""
        if self.init in ("correct", "clusters") or self.labels in ("learned", "frozen"):
            return self.last_epoch if self.experts.init_epoch is None else self.experts.init_epoch
        return None

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> ImageSet:
        """See `Method`."""
        buffer, flat = self.buffer(real, ctx), FunctionalNetwork(ctx.network(ctx.architecture, "student"))
        images, labels = self._start(real, ipc, flat, buffer, ctx)  # (n, c, h, w), (n,) or (n, k)
        ema, lr = images.clone(), torch.tensor(self.lr_teacher, device=ctx.device)
        learned = {
            "images": (images, self.lr_img, self.momentum_img),
            "lr": (lr, self.lr_lr, self.momentum_lr),
        }
        if self.labels == "learned":
            learned["labels"] = (labels, self.lr_label, self.momentum_label)
        optimizers = {
            name: torch.optim.SGD([t], rate, momentum) for name, (t, rate, momentum) in learned.items()
        }
        state = {"images": images, "labels": labels, "average": ema, "lr": lr}
        differentiator = self._differentiator(flat, len(images), real.shape, ctx)
        augment = Augment(self.augment, flip_allowed=real.flip, align_corners=True)
        views = Views(self.syn_steps, self.batch_syn, augment, real.shape, self.canvas)
        gradients, skipped = GRADIENTS[self.gradient], 0

        def check(step: int) -> None:
            self._check_rate(float(lr), step)

        def distilled() -> ImageSet:
            current = ema if self.ema else images
            trained = labels.softmax(1) if self.labels == "learned" else labels
            return ImageSet.of(real, current, trained, "input", lr=float(lr), canvas=self.canvas)

        everything = state | {f"{k}'s": v for k, v in optimizers.items()}
        for step in ctx.steps(self.iterations, everything, check=check, preview=distilled):
            segment = draw_segment(
                buffer, self.window, step, self.syn_steps, self.expert_epochs, self.intermediate, ctx
            )
            start = segment.start
            if self.perturb:
                start = perturbed(start, flat, self.perturb, ctx.generator("perturb", step))
            step_labels = self._step_labels(flat, segment, images, labels)
            weight = balance(segment.epoch, self.window.stop) if self.balance else 1.0
            plan = views.plan(len(images), step, ctx)
            inner = InnerLoop(differentiator, start, plan, segment.targets, self.momentum_syn, weight)
            grads = gradients(inner, images, step_labels, lr)

            # the only wait for the device; see the class docstring
            loss, rate = torch.stack([grads.loss, lr]).tolist()
            self._check_rate(rate, step - 1)
            if self.skip_above is not None and not loss <= self.skip_above:
                ctx.log(loss=min(loss, 1e6) if math.isfinite(loss) else 1e6, lr=lr.clone())
                skipped += 1
                self._check_skips(skipped, step)
                continue
            if not math.isfinite(loss):
                raise Diverged(
                    f"the loss is {loss} at iteration {step}. Use method.lr_img={self.lr_img / 10:g}, a smaller "
                    "method.lr_lr, or method.skip_above=1.0 to skip such iterations"
                )
            ctx.log(loss=loss, lr=lr.clone())
            skipped, previous_lr = 0, lr.clone()
            for name, optimizer in optimizers.items():
                learned[name][0].grad = getattr(grads, name)
                optimizer.step()
            keep_positive(lr, previous_lr)
            if self.labels == "target":
                labels.copy_(step_labels)
            ema.lerp_(images, 1 - self.ema)

        return distilled()

    def _start(
        self, real: RealSet, ipc: int, flat: FunctionalNetwork, buffer: ExpertBuffer, ctx: DistillContext
    ) -> tuple[Tensor, Tensor]:
        """Return the initial images `(n, c, h, w)` and labels: classes `(n,)`, or logits or probabilities `(n, k)`."""
        hard, epoch = class_labels(real, ipc // self.canvas**2, ctx.device), self._init_epoch()
        if self.init in ("correct", "clusters"):
            assert epoch is not None
            choose = correct_index if self.init == "correct" else cluster_index
            images = real.train.inputs(choose(real, ipc, flat, buffer, epoch, ctx).flatten()).clone()
        elif self.canvas > 1 and self.init == "real":
            index = random_index(real, ipc, ctx)
            images = tile(real.train.inputs(index.flatten()), self.canvas).clone()
        elif self.canvas > 1:
            c, h, w = real.shape
            shape = (len(hard), c, h * self.canvas, w * self.canvas)
            images = torch.randn(shape, generator=ctx.generator("init"), device=ctx.device)
        else:
            images = initial_images(self.init, real, ipc, ctx).flatten(0, 1)
        if self.labels == "hard":
            return images, hard
        if self.labels == "target":
            return images, torch.nn.functional.one_hot(hard, real.num_classes).float()
        assert epoch is not None
        logits = mean_logits(images, hard, flat, buffer, epoch, ctx)
        return images, logits if self.labels == "learned" else logits.softmax(1)

    @torch.no_grad()
    def _step_labels(
        self, flat: FunctionalNetwork, segment: Segment, images: Tensor, labels: Tensor
    ) -> Tensor:
        """Return the labels of the student's training. With `labels=target`, the target snapshot predicts them."""
        if self.labels != "target":
            return labels
        return flat(segment.targets[-1].parameters, images).softmax(1)

    def _differentiator(
        self, flat: FunctionalNetwork, n: int, shape: tuple[int, int, int], ctx: DistillContext
    ) -> Differentiator:
        """Return the differentiator of the student's loss, compiled if that saves time in a run of this length."""
        learned = self.labels == "learned"

        def loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return classification_loss(flat(theta, x), y.softmax(1) if learned else y)

        images = self.iterations * self.syn_steps * min(n, self.batch_syn or n)
        compile = self.gradient != "unroll" and uses_compilation(images, shape, ctx.runtime)
        return CompiledDifferentiator(loss, learned) if compile else EagerDifferentiator(loss, learned)

    def _check_rate(self, rate: float, step: int) -> None:
        """Raise Diverged if the step size after iteration `step` is below `SMALLEST_RATE` or not finite."""
        if not SMALLEST_RATE <= rate < math.inf:
            raise Diverged(
                f"the student's step size changed from {self.lr_teacher:g} to {rate:g} by iteration {step}. "
                f"Use method.lr_lr={self.lr_lr / 10:g}, or another method.lr_teacher"
            )

    def _check_skips(self, skipped: int, step: int) -> None:
        if skipped >= MAX_SKIPS:
            raise Diverged(
                f"the loss was above method.skip_above={self.skip_above} for {skipped} consecutive iterations up to "
                f"{step}. Use method.lr_img={self.lr_img / 10:g}, method.lr_teacher={self.lr_teacher / 10:g}, or a "
                "larger method.skip_above"
            )


def keep_positive(lr: Tensor, previous: Tensor) -> None:
    """If the step size `lr` has decreased, apply the decrease as a factor, in place, so that `lr` stays positive."""
    change = lr - previous
    lr.copy_(torch.where(change < 0, previous * (change / previous).exp(), lr))
