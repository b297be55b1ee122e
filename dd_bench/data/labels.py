"""Labels of a synthetic set, and the one loss that trains on each kind of them.

Hard labels are int64 `(n,)`; a set's own soft labels are probabilities, float32 `(n, k)`. What teachers say of the
views of a set (`dd_bench.teachers.labelers`) are logits, so that the temperature is chosen when a network is trained.
"""

from __future__ import annotations

from typing import Literal

import torch
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
