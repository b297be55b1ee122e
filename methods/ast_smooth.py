"""AST: trajectory matching on smooth, high-quality experts (Shen et al., arXiv 2310.10541)."""

from __future__ import annotations

from typing import Any, ClassVar

from .mtt import MTT


class AST(MTT):
    """MTT on experts of a scaled loss and an input-gradient penalty, with a balanced student that has momentum.

    Images start at the samples nearest to the centroids of an expert's logits; the start of a student is
    perturbed, its loss is weighted by where in the window it stands, and it is matched between the epochs too.

    Deviations: written from the released code, the paper's equations were not at hand. One centroid an image,
    where the code has none below ipc 10; penalty norms over channels as released, `image` is the other reading.
    The released evaluation returns the best test accuracy of a training; here the protocol says what is scored.
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
