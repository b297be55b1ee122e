"""TESLA: trajectory matching in constant memory, by a truncated gradient (Cui et al., ICML 2023)."""

from __future__ import annotations

from .mtt import MTT


class TESLA(MTT):
    """MTT by equation 11 of the paper, which holds all weights of the student constant.

    `labels=target` is its soft-label assignment: every iteration labels the images by the target snapshot of its
    segment; the last labels are stored.

    Deviations: the paper calls the gradient exact, and it is so for one step only, see `dd_bench.distillation.unroll`;
    `gradient=adjoint` is exact in the same activation memory. The released code loses a factor 2 on the image
    gradient, not on that of the step size: its `lr_img` is twice ours for the same steps.
    """

    citation = "Cui et al., Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory, ICML 2023"
