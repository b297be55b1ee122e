"""Labels of a synthetic set, and the one loss that trains on each kind of them.

Hard labels are int64 `(n,)`; static soft labels are probabilities, float32 `(n, k)`.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
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
            f"the soft label of image {int(bad[0])} is no distribution: {labels[int(bad[0])].tolist()}"
        )


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits `(n, k)` against hard or soft labels, in float32 at least; 0-d."""
    return F.cross_entropy(_at_least_float32(logits), labels)


def mixed_loss(logits: Tensor, labels: Tensor, partner: Tensor, keep: Tensor) -> Tensor:
    """Cross-entropy of CutMix images: `keep` of the own label, the rest of the partner's; 0-d."""
    logits = _at_least_float32(logits)
    return keep * F.cross_entropy(logits, labels) + (1 - keep) * F.cross_entropy(logits, labels[partner])


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype.itemsize < 4 else logits
