"""CDA: SRe2L with a curriculum of crops, from whole images to small parts (Yin and Shen, TMLR 2024)."""

from __future__ import annotations

from .sre2l import SRe2L


class CDA(SRe2L):
    """SRe2L with one change: the minimum area of a crop decreases during recovery, from easy views to hard ones.

        for step in range(iterations):
            t = min(1, step / (milestone * iterations))
            area = smallest + (1 - smallest) * (1 + cos(pi t)) / 2
            one step of SRe2L on crops that cover between `area` and all of the image

    This schedule is `views.curriculum=cosine`. `linear` and `step` are the paper's other schedules. `const`, or a
    milestone of 0, is SRe2L with crops. `RecoverViews.area` computes all of them.

    As in the released Tiny-ImageNet code, images are rolled by 0 to 4 pixels. SRe2L's rolls by -4 to 4 there.

    Deviations: those of `SRe2L`.
    """

    citation = "Yin and Shen, Dataset Distillation via Curriculum Data Synthesis in Large Data Era, TMLR 2024"
