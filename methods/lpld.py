"""LPLD: recovery of one class at a time, with statistics of this class (Xiao and He, NeurIPS 2024)."""

from __future__ import annotations

from dd_bench.api import DistillContext, ImageSet, RealSet

from ._recovery.class_matching import ClassRecovery


class LPLD(ClassRecovery):
    """SRe2L whose batches contain the images of one class, and whose statistics are those of this class.

        for each class c:
            x ~ N(0, 1), all ipc images of the class
            for step in range(iterations):
                loss = CE(f(A(x)), c) + statistics * sum_l m_l (|var_l - V_lc| + |mean_l - M_lc|)
                x = clamp(x - Adam(grad loss)), with a cosine learning rate from lr_img to zero

    V_lc and M_lc are the statistics of the input of BatchNorm layer l for real images of class c. The images of a class
    are compared with each other through their common statistics, so they become more diverse than those of SRe2L, whose
    batches contain one image of each class. The paper therefore needs fewer labels: see `protocol=lpld-300`.

    Deviations: V_lc and M_lc are averages over batches of up to 100 real images, as in WMDD; the paper has running
    averages of the teacher in train mode. Images are stored as 8-bit pixels, rounded to the nearest value.
    """

    citation = "Xiao and He, Are Large-scale Soft Labels Necessary for Large-scale Dataset Distillation?, NeurIPS 2024"

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> ImageSet:
        """See `Method`."""
        return self.match(real, ipc, ctx.teachers_of(real)[0], ctx)
