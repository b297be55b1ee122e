"""FTD: trajectory matching on flat experts, which forgive a student's errors (Du et al., CVPR 2023)."""

from __future__ import annotations

from .mtt import MTT


class FTD(MTT):
    """MTT on experts of adaptive GSAM, keeping an exponential average of the images.

    At evaluation a student starts where its own errors led it, not at a snapshot of an expert; along flat
    trajectories that matters less. The average has no bias correction and leaves out the step size.

    Deviations: the released code scores the average on a network that it has just trained on the plain images;
    here every network is fresh. Its command line's rho of 2.0 is not the paper's 0.01, which is ours.
    """

    citation = (
        "Du et al., Minimizing the Accumulated Trajectory Error to Improve Dataset Distillation, CVPR 2023"
    )
