"""FTD: trajectory matching on flat expert trajectories (Du et al., CVPR 2023)."""

from __future__ import annotations

from .mtt import MTT


class FTD(MTT):
    """MTT on experts trained with adaptive GSAM. An exponential moving average of the images is stored.

    During distillation, a student starts at an expert snapshot. During evaluation, it continues from its own
    parameters, whose errors accumulate. These errors matter less along flat trajectories. The average has no bias
    correction and does not include the step size.

    Deviations from the released code: The released code evaluates the average on a network that was just trained on the
    current images. Here every network is fresh. The command line of the released code uses rho=2.0. The default here
    is the paper's 0.01.
    """

    citation = (
        "Du et al., Minimizing the Accumulated Trajectory Error to Improve Dataset Distillation, CVPR 2023"
    )
