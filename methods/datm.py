"""DATM: trajectory matching with a difficulty aligned with the number of images (Guo et al., ICLR 2024)."""

from __future__ import annotations

from typing import Any, ClassVar

from .mtt import MTT


class DATM(MTT):
    """MTT on FTD's experts with a growing window, correctly classified initial images, and learned soft labels.

    Small sets are matched to early epochs of the experts, and large sets to late epochs. The window of start epochs
    grows during distillation until it reaches `window.stop`. Labels are learned as logits, with the softmax inside the
    loss, and stored as probabilities. An iteration whose loss is above `skip_above` updates nothing.

    Deviations from the released code:

    - The labels of an image that no expert classifies correctly start from the mean logits of all experts. The released
      code divides zero by zero.
    - With `init=real`, labels also start from the mean over experts. The released code uses one expert.
    - After a hundred consecutive skipped iterations, an error is raised.
    """

    citation = "Guo et al., Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching, ICLR 2024"
    smoke: ClassVar[dict[str, Any]] = {
        **MTT.smoke,
        "window.grow_from": 1,
        "experts.init_epoch": 1,
        "skip_above": 10.0,
    }
