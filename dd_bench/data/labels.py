"""Hard and soft labels of a synthetic set, and their validation.

Hard labels are int64 `(n,)`. Soft labels stored in a set are probabilities, float32 `(n, k)`. Teachers' labels of
augmented views (`dd_bench.teachers.labelers`) are logits instead, so that the temperature can be chosen when a network
is trained.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

LabelMode = Literal["hard", "soft"]


def label_mode(labels: Tensor) -> LabelMode:
    """Return "hard" for int64 `(n,)` and "soft" for float `(n, k)`.

    Raises:
        ValueError: `labels` has another shape or dtype.
    """
    if labels.ndim == 1 and labels.dtype == torch.int64:
        return "hard"
    if labels.ndim == 2 and labels.is_floating_point():
        return "soft"
    raise ValueError(f"labels must be int64 (n,) or float (n, k), got {labels.dtype} {tuple(labels.shape)}")


def check_labels(labels: Tensor, num_images: int, num_classes: int) -> None:
    """Check the number of labels, their range and, for soft labels, that each row is a probability distribution.

    Raises:
        ValueError: a check failed. The message names the first invalid label.
    """
    mode = label_mode(labels)
    if len(labels) != num_images:
        raise ValueError(f"each image must have one label, got {num_images} images and {len(labels)} labels")
    if mode == "hard":
        bad = ((labels < 0) | (labels >= num_classes)).nonzero()
        if len(bad):
            i = int(bad[0])
            raise ValueError(f"the label of image {i} must be in 0..{num_classes - 1}, got {int(labels[i])}")
        return
    if labels.shape[1] != num_classes:
        raise ValueError(f"soft labels must have {num_classes} columns, one per class, got {labels.shape[1]}")
    valid = (labels >= 0).all(1) & ((labels.sum(1) - 1).abs() <= 1e-3)  # both False for NaN
    bad = (~valid).nonzero()
    if len(bad):
        raise ValueError(
            f"the soft label of image {int(bad[0])} must be a probability distribution, got a sum of "
            f"{float(labels[bad[0]].sum()):.4g} and a minimum of {float(labels[bad[0]].min()):.4g}. To convert logits "
            "with softmax: `dd-bench import ... --logits`"
        )
