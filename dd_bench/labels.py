"""Labels of a synthetic set, and the one loss that trains on each kind of them.

Hard labels are int64 `(n,)`; a set's own soft labels are probabilities, float32 `(n, k)`. What teachers say of the
views of a set (`dd_bench.labelers`) are logits, so that the temperature is chosen when a network is trained.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

LabelMode = Literal["hard", "soft"]


def label_mode(labels: Tensor) -> LabelMode:
    """Returns "hard" for int64 `(n,)` and "soft" for float `(n, k)`.

    Raises:
        ValueError: neither.
    """
    if labels.ndim == 1 and labels.dtype == torch.int64:
        return "hard"
    if labels.ndim == 2 and labels.is_floating_point():
        return "soft"
    raise ValueError(f"labels are int64 (n,) or float (n, k); got {labels.dtype} {tuple(labels.shape)}")


def check_labels(labels: Tensor, num_images: int, num_classes: int) -> None:
    """Checks count, range and, for soft labels, that each row is a distribution.

    Raises:
        ValueError: what is wrong, and where first.
    """
    mode = label_mode(labels)
    if len(labels) != num_images:
        raise ValueError(f"{num_images} images but {len(labels)} labels")
    if mode == "hard":
        bad = ((labels < 0) | (labels >= num_classes)).nonzero()
        if len(bad):
            i = int(bad[0])
            raise ValueError(f"label {int(labels[i])} of image {i} is outside 0..{num_classes - 1}")
        return
    if labels.shape[1] != num_classes:
        raise ValueError(f"soft labels have {labels.shape[1]} columns, the dataset has {num_classes} classes")
    fair = (labels >= 0).all(1) & ((labels.sum(1) - 1).abs() <= 1e-3)  # both false for NaN
    bad = (~fair).nonzero()
    if len(bad):
        raise ValueError(
            f"the soft label of image {int(bad[0])} is no distribution: {labels[int(bad[0])].tolist()}. Logits become "
            "one by softmax: `dd-bench import ... --logits`"
        )


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits `(n, k)` against hard or soft labels, in float32 at least; 0-d."""
    return F.cross_entropy(at_least_float32(logits), labels)


def mixed_loss(logits: Tensor, labels: Tensor, partner: Tensor, keep: Tensor) -> Tensor:
    """Cross-entropy of CutMix images: `keep` of the own label, the rest of the partner's; 0-d."""
    logits = at_least_float32(logits)
    return keep * F.cross_entropy(logits, labels) + (1 - keep) * F.cross_entropy(logits, labels[partner])


class Weighted(NamedTuple):
    """Hard labels `(b,)` and the weight of each sample `(b,)`."""

    labels: Tensor
    weights: Tensor


def weighted_loss(logits: Tensor, target: Weighted) -> Tensor:
    """Mean of the samples' cross-entropies, each times its weight; 0-d."""
    each = F.cross_entropy(at_least_float32(logits), target.labels, reduction="none")
    return (each * target.weights).mean()


def at_least_float32(logits: Tensor) -> Tensor:
    """Returns float32 for what a network computed in a shorter type, else the tensor itself."""
    return logits.float() if logits.dtype.itemsize < 4 else logits


class LabelRecipe(BaseModel):
    """How fresh networks are told what to answer.

    Attributes:
        kind: who says it.
        loss: `kl` of tempered distributions, or `mse` of the logits themselves.
        temperature: of both sides of `kl`.
        scaled: multiply `kl` by the squared temperature.
        hard_weight: weight of the cross-entropy with the class beside the soft loss.
        mix_space: of `static`: what a mixture interpolates, `logits` or `probabilities`.
        teacher_mode: `eval`, or `train`: by the statistics of the batch shown, as the released CIFAR code of SRe2L
            labels by accident; running statistics stay as they are.
        pool: of `replay`: epochs are drawn from so many times fewer stored ones (LPLD).
        top: of `replay`: store so many logits a view, and one for the rest, with which they keep their share at the
            loss's temperature (`mse`: their mean); null: all.
        source: of `replay`: the folder of labels made elsewhere; null: make them.
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
    def _of_views(self) -> Self:
        if self.kind == "static" and self.teacher_mode == "train":
            raise ValueError(
                "kind=static with teacher_mode=train: an image that is labelled once is in no batch, whose statistics "
                "these would be. Use teacher_mode=eval, or kind=replay"
            )
        return self


class Taught(NamedTuple):
    """A soft target: what the teachers say, logits `(b, k)`, beside the classes of the images shown."""

    logits: Tensor
    hard: Tensor
    partner: Tensor | None
    keep: Tensor | None
    recipe: LabelRecipe


def taught_loss(logits: Tensor, target: Taught) -> Tensor:
    """Loss of logits `(b, k)` against a soft target; 0-d.

    `kl` is KL(softmax(teacher / T) || softmax(student / T)), a mean over images; times T^2 if `scaled`. `mse` is the
    mean squared difference of all logits. Both plus `hard_weight` times the cross-entropy with the classes.
    """
    how, student, teacher = target.recipe, at_least_float32(logits), target.logits
    if how.loss == "kl":
        t = how.temperature
        loss = F.kl_div(
            (student / t).log_softmax(1), (teacher / t).log_softmax(1), reduction="batchmean", log_target=True
        )
        loss = loss * t**2 if how.scaled else loss
    else:
        loss = F.mse_loss(student, teacher)
    if how.hard_weight:
        loss = loss + how.hard_weight * _hard_loss(student, target)
    return loss


def _hard_loss(logits: Tensor, target: Taught) -> Tensor:
    if target.partner is None or target.keep is None:
        return classification_loss(logits, target.hard)
    return mixed_loss(logits, target.hard, target.partner, target.keep)
