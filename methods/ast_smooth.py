"""AST: trajectory matching on smooth, high-quality expert trajectories (Shen et al., arXiv 2310.10541)."""

from __future__ import annotations

from typing import Any, ClassVar

from .mtt import MTT


class AST(MTT):
    """MTT whose students use momentum and a balanced loss, and whose experts use a scaled loss and a gradient penalty.

    The initial images are the samples nearest to the k-means centroids of an expert's logits. The start parameters of a
    student are perturbed, its loss is weighted by the position of the start epoch in the window, and its parameters are
    also matched at intermediate epochs.

    The implementation follows the released code where it differs from the equations of the paper. For example, the
    gradient penalty takes the norm over the channels of each pixel. `experts.gradient_penalty.norm=image` takes the
    norm over the whole image, which is the other reading of the paper.

    Deviations:

    - There is one centroid per image. The released code has no centroids below ipc 10.
    - The released evaluation reports the best test accuracy during training. Here the protocol determines the score.
    """

    citation = (
        "Shen et al., AST: Effective Dataset Distillation through Alignment with Smooth and High-Quality Expert "
        "Trajectories, arXiv 2310.10541"
    )
    smoke: ClassVar[dict[str, Any]] = {
        **MTT.smoke,
        "experts.init_epoch": 1,
        "lr_lr": 1e-9,  # the expert hardly moves in its one epoch, so the loss and its slope are large
    }
