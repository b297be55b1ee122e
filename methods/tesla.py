"""TESLA: trajectory matching in constant memory by a truncated gradient (Cui et al., ICML 2023)."""

from __future__ import annotations

from .mtt import MTT


class TESLA(MTT):
    """MTT with the gradient of the paper's equation 11, which treats the weights of the student as constants.

    `labels=target` is the paper's soft-label assignment. In every iteration, the target snapshot of the segment labels
    the images. The last labels are stored.

    The paper calls this gradient exact. That is true for one step only, see `dd_bench.distillation.unroll`.
    `gradient=adjoint` is exact and uses the same activation memory.

    Deviation from the released code: The released code omits a factor 2 in the gradient of the images, but not in the
    gradient of the step size. To get the same steps here, use half of the released code's `lr_img`.
    """

    citation = "Cui et al., Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory, ICML 2023"
