"""A method: mean images of random groups of each class, refined by gradient steps."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from dd_bench.api import (
    Architecture,
    DistillContext,
    ImageSet,
    Method,
    RealSet,
    check_class_sizes,
    class_labels,
    mean_match,
    real_batch,
)


class GroupMeans(Method):
    """Start from mean images, then match the mean embeddings of the classes.

    Each class is divided at random into `ipc` groups, and each synthetic image starts as the mean of one group. Each
    step draws a fresh random network and takes one step of SGD on the distance between the mean embeddings of real and
    synthetic images (the loss of DM). With `iterations=0` the set contains the mean images.

    This method is an example and has no paper. It differs from DM in the starting images, and uses no augmentation.
    """

    citation = "Example of the dd_bench documentation, after Zhao and Bilen, WACV 2023"
    smoke: ClassVar[dict[str, Any]] = {"iterations": 3, "batch_real": 8}

    def __init__(self, *, iterations: int, lr_img: float, batch_real: int):
        """See `conf/method/group_means.yaml`."""
        self.iterations, self.lr_img, self.batch_real = iterations, lr_img, batch_real

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """Return why the dataset does not fit, or None. Each group needs at least one image."""
        return super().check_dataset(real, ipc, architecture) or check_class_sizes(real, ipc, ipc)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> ImageSet:
        """Return the synthetic set."""
        syn = group_means(real, ipc, ctx).requires_grad_()  # (k, ipc, c, h, w)
        optimizer = torch.optim.SGD([syn], lr=self.lr_img)
        for step in ctx.steps(self.iterations, {"images": syn, "optimizer": optimizer}):
            net = ctx.network(ctx.architecture, step).requires_grad_(False)
            batch = real_batch(real, self.batch_real, ctx, step)  # (k, b, c, h, w)
            a, b = (net.embed(x.flatten(0, 1)).unflatten(0, x.shape[:2]) for x in (batch, syn))
            loss = mean_match(a, b)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            ctx.log(loss=loss)
        return ImageSet.of(real, syn.flatten(0, 1), class_labels(real, ipc, ctx.device), "input")


def group_means(real: RealSet, ipc: int, ctx: DistillContext) -> Tensor:
    """Return the mean images of `ipc` random groups of each class, as network inputs `(k, ipc, c, h, w)`."""
    means = []
    for c in range(real.num_classes):
        members = real.train.of_class(c)
        order = torch.randperm(len(members), generator=ctx.generator("groups", c), device=ctx.device)
        means += [real.train.inputs(group).mean(0) for group in members[order].tensor_split(ipc)]
    return torch.stack(means).unflatten(0, (real.num_classes, ipc))
