"""SRe2L with several teachers in turn and real starts, after G-VBSM (Shao et al., CVPR 2024) and EDC (NeurIPS 2024)."""

from __future__ import annotations

from .sre2l import SRe2L


class SRe2LMulti(SRe2L):
    """SRe2L whose teachers take turns, one a step, and whose images start from real ones (or RDED composites).

    Deviations: of G-VBSM and EDC these two parts are offered. Their convolution, patch and class-wise statistics,
    the averaged matching, densification and the flatness term are not. For the others see `SRe2L`.
    """

    citation = (
        "Shao et al., Generalized Large-Scale Data Condensation via Various Backbone and Statistical Matching, "
        "CVPR 2024"
    )
