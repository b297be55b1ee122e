"""DSA: DC with the same augmentation for the real and the synthetic batch of a class (Zhao and Bilen, ICML 2021)."""

from __future__ import annotations

from typing import Any

from .dc import DC


class DSA(DC):
    """DC with real initialisation, Siamese augmentation for matching, and per-image augmentation for network training.

    `DC` already draws one augmentation per class and applies it to both batches. This class requires a non-empty
    augmentation.

    Deviations: those of `DC`.
    """

    citation = "Zhao and Bilen, Dataset Condensation with Differentiable Siamese Augmentation, ICML 2021"

    def __init__(self, *, augment: str, **kwargs: Any):
        """See `conf/method/dsa.yaml` for the arguments; `kwargs` are those of `DC`.

        Raises:
            ValueError: There is no augmentation.
        """
        if augment in ("", "none"):
            raise ValueError(
                f"method.augment must not be empty, got {augment!r}. DSA without augmentation is DC. Use method=dc"
            )
        super().__init__(augment=augment, **kwargs)
