"""Losses for hard labels, soft labels, mixed batches, and distillation from teachers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dd_bench.training.label_recipe import LabelRecipe


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits `(n, k)` against hard or soft labels, in float32 at least; 0-d."""
    return F.cross_entropy(at_least_float32(logits), labels)


def mixed_loss(
    logits: Tensor, labels: Tensor, partner: Tensor, keep: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Return the mean cross-entropy of mixed images, 0-d.

    The cross-entropy with the image's own label has weight `keep`, and with the label of its partner `1 - keep`. With
    `keep (g,)`, the images are those of g networks, in this order, and each network has its own weight.
    """
    logits, other = at_least_float32(logits), labels[partner]
    if keep.ndim == 0:
        own = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        return keep * own + (1 - keep) * F.cross_entropy(logits, other, label_smoothing=smoothing)
    own, others = (
        F.cross_entropy(logits, y, reduction="none", label_smoothing=smoothing).view(len(keep), -1).mean(1)
        for y in (labels, other)
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


class Temperatures(NamedTuple):
    """The temperatures of a step of g networks, if they change during the training.

    Attributes:
        teacher: temperature of the teachers, 0-d.
        student: temperature of each network `(g,)`, or its ratio to that of the teachers for `calibrated_ratio`; None
            for that of the teachers.
        calibrate: whether to replace `student` by the temperatures with the smallest loss, see `calibrated`.
    """

    teacher: Tensor
    student: Tensor | None
    calibrate: bool


class SoftTarget(NamedTuple):
    """A soft target: the teachers' logits `(b, k)`, the classes `(b,)`, and the mixture of the images, if any.

    `temperatures` is None if they are constant.
    """

    logits: Tensor
    hard: Tensor
    partner: Tensor | None
    keep: Tensor | None
    recipe: LabelRecipe
    temperatures: Temperatures | None = None


class SmoothedTarget(NamedTuple):
    """Class labels `(b,)` whose cross-entropy is smoothed, and the mixture of the images, if any."""

    hard: Tensor
    partner: Tensor | None
    keep: Tensor | None
    smoothing: float


def distillation_loss(logits: Tensor, target: SoftTarget) -> Tensor:
    """Loss of logits `(b, k)` against a soft target; 0-d.

    `kl` is the mean over images of KL(softmax(teacher / T) || softmax(student / T)), times T^2 if `scaled`. `mse` is
    the mean squared difference of all logits. `cosine` is `cosine_loss`. To all, `hard_weight` times the cross-entropy
    with the classes is added.
    """
    recipe, student, teacher = target.recipe, at_least_float32(logits), target.logits
    if recipe.loss == "kl":
        loss = _kl(student, target)
    elif recipe.loss == "mse":
        loss = F.mse_loss(student, teacher)
    else:
        loss = cosine_loss(student, target)
    if recipe.hard_weight:
        loss = loss + recipe.hard_weight * _hard_loss(student, target, recipe.hard_smoothing)
    return loss


def _kl(student: Tensor, target: SoftTarget) -> Tensor:
    """Return the KL divergence of tempered distributions, 0-d."""
    now = target.temperatures
    t: float | Tensor = target.recipe.temperature if now is None else now.teacher
    s = t
    scale = t if target.recipe.student_temperature == "calibrated_ratio" else 1.0
    if now is not None and now.student is not None:
        s = scale * now.student.repeat_interleave(len(student) // len(now.student))[:, None]
    p = (target.logits / t).log_softmax(1)
    loss = F.kl_div((student / s).log_softmax(1), p, reduction="batchmean", log_target=True)
    if now is not None and now.student is not None and now.calibrate:
        with torch.no_grad():
            now.student.copy_(calibrated(student, p.exp(), len(now.student), scale) / scale)
    return loss * t**2 if target.recipe.scaled else loss


def calibrated(student: Tensor, p: Tensor, networks: int, scale: float | Tensor = 1.0) -> Tensor:
    """Return the temperature with the smallest KL divergence from the teacher for each network, `(networks,)`.

    The temperatures that are compared are 0.01, 0.02, ..., 1, times `scale` (CA of LPQLD).

    Args:
        student: logits of the networks, network after network, `(networks * b, k)`.
        p: probabilities of the teachers `(networks * b, k)`.
        networks: number of networks.
        scale: factor of all temperatures.
    """
    grid = torch.arange(1, 101, device=student.device) / 100 * scale
    losses = [
        -(p * (student / t[:, None, None]).log_softmax(2)).sum(2)  # the entropy of p does not depend on t
        for t in grid.split(max(1, CALIBRATION_SIZE // student.numel()))
    ]
    return grid[torch.cat(losses).unflatten(1, (networks, -1)).mean(2).argmin(0)]


CALIBRATION_SIZE = 2**24
"""Maximum number of logits that `calibrated` divides by temperatures at once."""


def cosine_loss(student: Tensor, target: SoftTarget) -> Tensor:
    """Mean over images of 1 - cos(student, z / |z| + refine * h / |h|) for the teachers' logits z; 0-d (GIFT).

    h is the class label with probability 1 - s and s / (k - 1) for each other class, s = `hard_smoothing`. The label of
    two mixed images is the mixture of their labels.
    """
    z = F.normalize(target.logits, dim=1)
    if refine := target.recipe.refine:
        h = _smoothed_classes(target, z.shape[1], target.recipe.hard_smoothing).to(z.dtype)
        z = z + refine * F.normalize(h, dim=1)
    return 1 - F.cosine_similarity(student, z, dim=1).mean()


def _smoothed_classes(target: SoftTarget, k: int, smoothing: float) -> Tensor:
    """Return the class labels as distributions `(b, k)`, mixed like the images."""
    others = smoothing / (k - 1) if k > 1 else 0.0
    is_class = target.hard[:, None] == torch.arange(k, device=target.hard.device)
    h = is_class * (1 - smoothing - others) + others
    if target.partner is None or target.keep is None:
        return h
    keep = target.keep.reshape(-1)
    keep = keep.repeat_interleave(len(h) // len(keep))[:, None]
    return keep * h + (1 - keep) * h[target.partner]


def _hard_loss(logits: Tensor, target: SoftTarget | SmoothedTarget, smoothing: float) -> Tensor:
    if target.partner is None or target.keep is None:
        if smoothing:
            return F.cross_entropy(at_least_float32(logits), target.hard, label_smoothing=smoothing)
        return classification_loss(logits, target.hard)
    return mixed_loss(logits, target.hard, target.partner, target.keep, smoothing)


Target = Any
"""Labels, `(labels, partner, keep)` of a mixed batch, `SoftTarget`, `SmoothedTarget` or `Weighted`."""

Loss = Callable[[nn.Module, Tensor, Target], Tensor]
"""Maps `(net, inputs, target)` to a 0-d loss."""


def target_loss(logits: Tensor, y: Target) -> Tensor:
    """Return the loss of logits `(b, k)` against any kind of target; 0-d."""
    if isinstance(y, SoftTarget):
        return distillation_loss(logits, y)
    if isinstance(y, SmoothedTarget):
        return _hard_loss(logits, y, y.smoothing)
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
