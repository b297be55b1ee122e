"""Losses for hard labels, soft labels, mixed batches, and distillation from teachers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits `(n, k)` against hard or soft labels, in float32 at least; 0-d."""
    return F.cross_entropy(at_least_float32(logits), labels)


def mixed_loss(logits: Tensor, labels: Tensor, partner: Tensor, keep: Tensor) -> Tensor:
    """Return the mean cross-entropy of mixed images, 0-d.

    The cross-entropy with the image's own label has weight `keep`, and with the label of its partner `1 - keep`. With
    `keep (g,)`, the images are those of g networks, in this order, and each network has its own weight.
    """
    logits, other = at_least_float32(logits), labels[partner]
    if keep.ndim == 0:
        return keep * F.cross_entropy(logits, labels) + (1 - keep) * F.cross_entropy(logits, other)
    own, others = (
        F.cross_entropy(logits, y, reduction="none").view(len(keep), -1).mean(1) for y in (labels, other)
    )
    return (keep * own + (1 - keep) * others).mean()


class Weighted(NamedTuple):
    """Hard labels `(b,)` and the weight of each sample `(b,)`."""

    labels: Tensor
    weights: Tensor


def weighted_loss(logits: Tensor, target: Weighted) -> Tensor:
    """Mean over samples of the weighted cross-entropy; 0-d."""
    losses = F.cross_entropy(at_least_float32(logits), target.labels, reduction="none")
    return (losses * target.weights).mean()


def at_least_float32(logits: Tensor) -> Tensor:
    """Convert half-precision logits to float32; leave others unchanged."""
    return logits.float() if logits.dtype.itemsize < 4 else logits


class LabelRecipe(BaseModel):
    """The labels that fresh networks are trained on, and their loss.

    Attributes:
        kind: source of the labels, see `dd_bench.teachers.labelers`.
        loss: `kl` of distributions at a temperature, or `mse` of the logits.
        temperature: temperature of both distributions of `kl`.
        scaled: whether to multiply `kl` by the squared temperature.
        hard_weight: weight of the cross-entropy with the true class, which is added to the soft loss.
        mix_space: for `static`, whether a mixture interpolates `logits` or `probabilities`.
        teacher_mode: `eval`, or `train`, which normalises with the statistics of the batch, as the released CIFAR code
            of SRe2L does by accident. Running statistics do not change in either mode.
        pool: for `replay`, the number of training epochs divided by the number of stored epochs. Training uses each
            stored epoch once, and then stored epochs that are drawn at random (LPLD).
        top: for `replay`, the number of logits stored per view, the largest ones; null: all logits. One additional
            value replaces each of the other logits. For `kl` it preserves their total probability at `temperature`, and
            for `mse` it is their mean.
        source: for `replay`, a folder of existing labels; null: compute them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["hard", "static", "replay", "online"]
    loss: Literal["kl", "mse"]
    temperature: float = Field(gt=0)
    scaled: bool
    hard_weight: float = Field(ge=0)
    mix_space: Literal["logits", "probabilities"]
    teacher_mode: Literal["eval", "train"]
    pool: int = Field(ge=1)
    top: int | None = Field(ge=1)
    source: str | None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "static" and self.teacher_mode == "train":
            raise ValueError(
                "kind=static requires teacher_mode=eval, got teacher_mode=train, because the teachers label each "
                "image only once and not in training batches. Use teacher_mode=eval or kind=replay"
            )
        return self


class SoftTarget(NamedTuple):
    """A soft target: the teachers' logits `(b, k)`, the classes `(b,)`, and the mixture of the images, if any."""

    logits: Tensor
    hard: Tensor
    partner: Tensor | None
    keep: Tensor | None
    recipe: LabelRecipe


def distillation_loss(logits: Tensor, target: SoftTarget) -> Tensor:
    """Loss of logits `(b, k)` against a soft target; 0-d.

    `kl` is the mean over images of KL(softmax(teacher / T) || softmax(student / T)), times T^2 if `scaled`. `mse` is
    the mean squared difference of all logits. To both, `hard_weight` times the cross-entropy with the classes is added.
    """
    recipe, student, teacher = target.recipe, at_least_float32(logits), target.logits
    if recipe.loss == "kl":
        t = recipe.temperature
        loss = F.kl_div(
            (student / t).log_softmax(1), (teacher / t).log_softmax(1), reduction="batchmean", log_target=True
        )
        loss = loss * t**2 if recipe.scaled else loss
    else:
        loss = F.mse_loss(student, teacher)
    if recipe.hard_weight:
        loss = loss + recipe.hard_weight * _hard_loss(student, target)
    return loss


def _hard_loss(logits: Tensor, target: SoftTarget) -> Tensor:
    if target.partner is None or target.keep is None:
        return classification_loss(logits, target.hard)
    return mixed_loss(logits, target.hard, target.partner, target.keep)


Target = Any
"""Labels, `(labels, partner, keep)` of a mixed batch, `SoftTarget` or `Weighted`."""

Loss = Callable[[nn.Module, Tensor, Target], Tensor]
"""Maps `(net, inputs, target)` to a 0-d loss."""


def target_loss(logits: Tensor, y: Target) -> Tensor:
    """Return the loss of logits `(b, k)` against any kind of target; 0-d."""
    if isinstance(y, SoftTarget):
        return distillation_loss(logits, y)
    if isinstance(y, Weighted):
        return weighted_loss(logits, y)
    return mixed_loss(logits, *y) if isinstance(y, tuple) else classification_loss(logits, y)


def network_loss(net: nn.Module, x: Tensor, y: Target, autocast: bool) -> Tensor:
    """Return the loss of a network on inputs `x (b, c, h, w)` with target `y`; 0-d."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
        logits = net(x)
    return target_loss(logits, y)


def compiled_loss() -> Callable[..., Tensor]:
    """Return the compiled `network_loss`; one compilation serves every network of an architecture."""
    global _COMPILED
    if _COMPILED is None:
        # with the default limit of 8, the ninth architecture or batch shape of a run would not be compiled
        torch._dynamo.config.recompile_limit = max(1024, torch._dynamo.config.recompile_limit)
        _COMPILED = torch.compile(network_loss, dynamic=False)
    return _COMPILED


_COMPILED: Callable[..., Tensor] | None = None
