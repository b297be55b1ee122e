"""DATM: trajectory matching of the difficulty that the images can hold (Guo et al., ICLR 2024)."""

from __future__ import annotations

from typing import Any, ClassVar

from .mtt import MTT


class DATM(MTT):
    """MTT on FTD's experts, with a window of epochs by ipc, images that experts get right, and learned labels.

    Few images follow early epochs, many follow late ones; the window grows to its stop while distilling. Labels
    are logits, with the softmax inside the loss; stored are probabilities. An iteration whose loss is above
    `skip_above` moves nothing.

    Deviations: an image that no expert gets right starts with the mean logits of all experts (the code divides
    zero by zero); with `init=real` labels start from the mean over experts too, where the code asks one expert;
    a hundred skipped iterations in a row are an error.
    """

    citation = "Guo et al., Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching, ICLR 2024"
    smoke: ClassVar[dict[str, Any]] = {
        **MTT.smoke,
        "window.grow_from": 1,
        "experts.init_epoch": 1,
        "skip_above": 10.0,
    }
