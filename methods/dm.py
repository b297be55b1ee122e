"""DM: match class-mean embeddings under random networks (Zhao and Bilen, WACV 2023)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import (
    Architecture,
    Augment,
    DistillContext,
    ImageSet,
    Method,
    Network,
    RealSet,
    State,
    check_class_sizes,
    check_norm,
    class_chunks,
    class_labels,
    initial_images,
    mean_match,
    real_batch,
)


class DM(Method):
    """Each iteration samples a random network and takes one SGD step on the distance of class means in its embedding.

    All classes pass through the network as one batch. Without BatchNorm this equals the per-class loop and is faster.
    With BatchNorm it is the `BN` branch of the released code, in which the real and the synthetic images form separate
    batches and the network is in train mode.

    Deviations from the released code:

    - There are exactly `iterations` updates. The released code makes one more, and saves a set that is one update newer
      than the one it evaluates.
    - If a class has fewer than `batch_real` images, the real batches of all classes have the size of this class.
    """

    citation = "Zhao and Bilen, Dataset Condensation with Distribution Matching, WACV 2023"
    smoke: ClassVar[dict[str, Any]] = {"iterations": 3, "batch_real": 8}

    def __init__(
        self,
        *,
        iterations: int,
        lr_img: float,
        momentum_img: float,
        batch_real: int,
        init: str,
        augment: str,
        norm: str | None,
        class_chunk: int | None,
    ):
        """See `conf/method/dm.yaml` for the arguments."""
        self.iterations, self.lr_img, self.momentum_img = iterations, lr_img, momentum_img
        self.batch_real, self.init, self.augment = batch_real, init, augment
        self.norm, self.class_chunk = norm, class_chunk

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        reason = super().check_dataset(real, ipc, architecture) or check_norm(self.norm, architecture)
        return reason or (check_class_sizes(real, ipc, ipc, "real") if self.init == "real" else None)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> ImageSet:
        """See `Method`."""
        architecture, k = ctx.architecture.override(norm=self.norm), real.num_classes
        augment = Augment(self.augment, flip_allowed=real.flip)
        syn = initial_images(self.init, real, ipc, ctx).requires_grad_()  # (k, ipc, c, h, w)
        optimizer = torch.optim.SGD([syn], lr=self.lr_img, momentum=self.momentum_img)
        loss_of = ctx.compiled(self.loss, self.iterations * k * (self.batch_real + ipc))

        def distilled() -> ImageSet:
            return ImageSet.of(real, syn.flatten(0, 1), class_labels(real, ipc, ctx.device), "input")

        state: State = {"images": syn, "optimizer": optimizer}
        for step in ctx.steps(self.iterations, state, preview=distilled):
            net = ctx.network(architecture, step).requires_grad_(False)
            batch = real_batch(real, self.batch_real, ctx, step)  # (k, b, c, h, w)
            draw = augment.draw(k, ctx.stream("augment", step))  # one draw per class, shared by both batches
            batch, siamese = augment.apply(batch, draw), augment.apply(syn, draw)
            optimizer.zero_grad()
            total = torch.zeros((), device=ctx.device)
            for part in class_chunks(k, self.class_chunk, net):
                loss = loss_of(net, batch[part], siamese[part])
                loss.backward(retain_graph=part.stop < k)
                total += loss.detach()
            optimizer.step()
            ctx.log(loss=total / k)
        return distilled()

    def loss(self, net: Network, real: Tensor, syn: Tensor) -> Tensor:
        """Return the loss of `real (k, b, c, h, w)` and `syn (k, ipc, c, h, w)`, summed over classes."""
        with torch.no_grad():
            target = net.embed(real.flatten(0, 1)).unflatten(0, real.shape[:2])
        return mean_match(target, net.embed(syn.flatten(0, 1)).unflatten(0, syn.shape[:2]))
