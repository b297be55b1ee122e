"""Find out whether released soft labels are probabilities or logits. A softmax is never applied to probabilities."""

from __future__ import annotations

import torch
from torch import Tensor


def labels_of(labels: Tensor, *, logits: bool) -> Tensor:
    """Return hard labels as int64 `(n,)` and soft labels as probabilities, float32 `(n, k)`.

    Args:
        labels: integers `(n,)`, or `(n, k)`.
        logits: whether the user has declared the soft labels to be logits. They are converted by a softmax.

    Raises:
        ValueError: labels `(n,)` that are no integers; soft labels that are probabilities although `logits` is set; or
            soft labels that are not probabilities without `logits`.
    """
    if labels.ndim == 1:
        if labels.is_floating_point() and not bool((labels == labels.round()).all()):  # also NaN
            raise ValueError(f"labels of shape (n,) must be integers, got {_range(labels)}")
        if logits:
            raise ValueError(
                "--logits requires soft labels of shape (n, k), got hard labels. Leave out --logits"
            )
        return labels.long()
    soft = labels.double()
    if not bool(torch.isfinite(soft).all()):
        raise ValueError("soft labels must be finite")
    if are_probabilities(soft):
        if logits:
            raise ValueError(
                "the soft labels are probabilities: no value is negative and every row sums to one. A softmax would "
                "flatten them. Leave out --logits"
            )
        return soft.float()
    if logits:
        return soft.softmax(1).float()
    kind = "logits or regression targets" if bool((soft < 0).any()) else "not normalised"
    raise ValueError(
        f"soft labels must be probability distributions, but these are {kind}: values {_range(soft)}, sums of rows "
        f"{_range(soft.sum(1))}. If they are logits, add --logits to convert them with a softmax"
    )


def are_probabilities(labels: Tensor, tolerance: float = 1e-3) -> bool:
    """Return whether no value of `(n, k)` is negative and every row sums to one. One-hot labels are probabilities."""
    return bool((labels >= 0).all()) and bool(((labels.sum(1) - 1).abs() <= tolerance).all())


def _range(values: Tensor) -> str:
    return f"{float(values.min()):.4g}..{float(values.max()):.4g}"
