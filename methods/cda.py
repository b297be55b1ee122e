"""CDA: SRe2L under a curriculum of crops, from whole images to small parts (Yin and Shen, TMLR 2024)."""

from __future__ import annotations

from .sre2l import SRe2L


class CDA(SRe2L):
    """SRe2L with one change: the smallest area of a crop falls during recovery, from easy views to hard ones.

        for step in range(iterations):
            t = step / (milestone * iterations)
            area = smallest + (1 - smallest) (1 + cos(pi t)) / 2, and smallest from the milestone on
            one step of SRe2L on crops that cover between `area` and all of the image

    That is `views.curriculum=cosine`; `linear` and `step` are the paper's other schedules, and `const` or a milestone
    of 0 is SRe2L with crops. `RecoverViews.area` computes them.

    Deviations: those of `SRe2L`.
    """

    citation = "Yin and Shen, Dataset Distillation via Curriculum Data Synthesis in Large Data Era, TMLR 2024"
