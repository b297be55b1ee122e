"""DSA: DC with one augmentation for both batches of a class (Zhao and Bilen, ICML 2021)."""

from __future__ import annotations

from typing import Any

from .dc import DC


class DSA(DC):
    """DC started from real images, with Siamese augmentation in matching, per-image augmentation in learning.

    The base class draws one record a class and applies it to both batches; here the strategy is never empty.
    Deviations: those of `DC`.
    """

    citation = "Zhao and Bilen, Dataset Condensation with Differentiable Siamese Augmentation, ICML 2021"

    def __init__(self, *, augment: str, **knobs: Any):
        """Takes the keys of `conf/method/dsa.yaml`, those of `DC`."""
        if augment in ("", "none"):
            raise ValueError(f"method.augment={augment!r}: DSA without augmentation is DC. Use method=dc")
        super().__init__(augment=augment, **knobs)
