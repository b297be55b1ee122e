"""DSA: DC with one augmentation shared by the real and the synthetic batch of a class (Zhao and Bilen, ICML 2021)."""

from __future__ import annotations

from .dc import DC


class DSA(DC):
    """DC, started from real images, with Siamese augmentation in matching and per-image augmentation in learning.

    The base class draws one record a class and applies it to both batches; here the strategy must not be empty.
    Deviations: those of `DC`.
    """

    citation = "Zhao and Bilen, Dataset Condensation with Differentiable Siamese Augmentation, ICML 2021"

    def __init__(self, *, augment: str, **knobs: object):
        """Takes the keys of `conf/method/dsa.yaml`, those of `DC`."""
        if augment in ("", "none"):
            raise ValueError(f"method.augment={augment!r}: DSA without augmentation is DC. Use method=dc")
        super().__init__(augment=augment, **knobs)  # type: ignore[arg-type]
