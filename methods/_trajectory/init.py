"""Where the images and the labels start when experts have a say: representative images, experts' probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from dd_bench.api import DistillContext, ExpertBuffer, FunctionalNetwork, RealSet, representatives

INITS = ("real", "noise", "correct", "clusters")
LABELS = ("hard", "learned", "frozen", "target")
_RESTARTS = 3  # of k-means


def correct_index(
    real: RealSet, ipc: int, flat: FunctionalNetwork, buffer: ExpertBuffer, epoch: int, ctx: DistillContext
) -> Tensor:
    """Returns random training images that an expert classifies correctly, `(k, ipc)` (DATM).

    Expert 0 is asked first, and the next one only for the classes it leaves short. A class that all experts leave
    short is filled up with other images of it, which is noted.
    """
    rows = []
    for c in range(real.num_classes):
        members = real.train.of_class(c)
        order = members[torch.randperm(len(members), generator=ctx.generator("init", c), device=ctx.device)]
        chosen, left = order[:0], order
        for expert in range(len(buffer)):
            right = _logits(flat, buffer.snapshot(expert, epoch, ctx.device), real, left).argmax(1) == c
            chosen, left = torch.cat([chosen, left[right]]), left[~right]
            if len(chosen) >= ipc:
                break
        if len(chosen) < ipc:
            ctx.note(
                f"the experts classify only {len(chosen)} images of class {real.class_names[c]!r} correctly; "
                "others fill it up"
            )
        rows.append(torch.cat([chosen, left])[:ipc])
    return torch.stack(rows)


def cluster_index(
    real: RealSet, ipc: int, flat: FunctionalNetwork, buffer: ExpertBuffer, epoch: int, ctx: DistillContext
) -> Tensor:
    """Returns the training images nearest to the centroids of k-means on an expert's logits, `(k, ipc)` (AST).

    One centroid an image: the released code divides ipc by ten and has none below.
    """
    expert = int(torch.randint(len(buffer), (), generator=ctx.stream("init").host))
    theta = buffer.snapshot(expert, epoch, ctx.device)
    rows = []
    for c in range(real.num_classes):
        members = real.train.of_class(c)
        features = _logits(flat, theta, real, members).double()
        rows.append(members[representatives(features, ipc, _RESTARTS, ctx.seed_for("clusters", c))])
    return torch.stack(rows)


@torch.no_grad()
def mean_logits(
    images: Tensor,
    labels: Tensor,
    flat: FunctionalNetwork,
    buffer: ExpertBuffer,
    epoch: int,
    ctx: DistillContext,
) -> Tensor:
    """Returns the mean logits `(n, k)` of the experts that classify an image correctly; of all, where none does."""
    right, every = torch.zeros((), device=ctx.device), torch.zeros((), device=ctx.device)
    count = torch.zeros(len(images), 1, device=ctx.device)
    for expert in range(len(buffer)):
        theta = buffer.snapshot(expert, epoch, ctx.device)
        logits = torch.cat([flat(theta, part) for part in images.split(256)])
        correct = (logits.argmax(1) == labels).float()[:, None]
        right, every, count = right + correct * logits, every + logits, count + correct
    return torch.where(count > 0, right / count.clamp_min(1), every / len(buffer))


@torch.no_grad()
def _logits(flat: FunctionalNetwork, theta: Tensor, real: RealSet, index: Tensor) -> Tensor:
    parts = [flat(theta, real.train.inputs(part)) for part in index.split(256)]
    return torch.cat(parts) if parts else torch.zeros(0, real.num_classes, device=theta.device)
