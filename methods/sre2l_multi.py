"""SRe2L with alternating teachers and real initialisation, as in G-VBSM (CVPR 2024) and EDC (NeurIPS 2024)."""

from __future__ import annotations

from .sre2l import SRe2L


class SRe2LMulti(SRe2L):
    """SRe2L whose teachers alternate, one per step, and whose images start from real images or RDED composites.

    Deviations: Only these two parts of G-VBSM and EDC are implemented. Not implemented are the statistics of
    convolutions, patches and classes, averaged matching, densification and the flatness term. All deviations of
    `SRe2L` also apply.
    """

    citation = (
        "Shao et al., Generalized Large-Scale Data Condensation via Various Backbone and Statistical Matching, "
        "CVPR 2024"
    )
