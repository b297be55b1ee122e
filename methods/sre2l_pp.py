"""SRe2L++: SRe2L from composites of real patches, with augmentation (in CV-DD, arXiv 2501.07575)."""

from __future__ import annotations

from .sre2l import SRe2L


class SRe2LPlusPlus(SRe2L):
    """SRe2L that starts from composites of patches from the middle of RDED's ranking, with crops and flips.

    This is the baseline that CV-DD improves. In the paper, it also has labels by a teacher in train mode
    (`protocol.labels.teacher_mode=train`) and an evaluation with batches of 16 images.

    Deviations: The composites are those of RDED with `patches.pick=medium`, because the paper's were not found. All
    deviations of `SRe2L` also apply.
    """

    citation = "Cui et al., Dataset Distillation via Committee Voting, arXiv 2501.07575, 2025 (baseline)"
