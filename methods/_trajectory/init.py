"""Initial images and labels that are computed with the experts."""

from __future__ import annotations

import torch
from torch import Tensor

from dd_bench.api import DistillContext, ExpertBuffer, FunctionalNetwork, RealSet, representatives

INITS = ("real", "noise", "correct", "clusters")
LABELS = ("hard", "learned", "frozen", "target")
_RESTARTS = 3  # runs of k-means, of which the best is used


def correct_index(
    real: RealSet, ipc: int, flat: FunctionalNetwork, buffer: ExpertBuffer, epoch: int, ctx: DistillContext
) -> Tensor:
    """Return the indices `(k, ipc)` of random training images that an expert classifies correctly (DATM).

    The first images are those that expert 0 classifies correctly. The next experts are used only while a class has too
    few images. If all experts classify too few images of a class correctly, other images of the class are added, and
    the record gets a note.
    """
    rows = []
    for c in range(real.num_classes):
        members = real.train.of_class(c)
        order = members[torch.randperm(len(members), generator=ctx.generator("init", c), device=ctx.device)]
        chosen, left = order[:0], order
        for expert in range(len(buffer)):
            theta = buffer.snapshot(expert, epoch, ctx.device)
            correct = _logits(flat, theta, real, left).argmax(1) == c
            chosen, left = torch.cat([chosen, left[correct]]), left[~correct]
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
    """Return the indices `(k, ipc)` of the training images nearest to k-means centroids of an expert's logits (AST).

    There is one centroid per image. The released code has ipc // 10 centroids, and none below ipc 10.
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
    """Return the logits of images, `(n, k)`, averaged over experts.

    The average is over the experts that classify the image correctly, or over all experts if none does.
    """
    total_correct, total = torch.zeros((), device=ctx.device), torch.zeros((), device=ctx.device)
    count = torch.zeros(len(images), 1, device=ctx.device)
    for expert in range(len(buffer)):
        theta = buffer.snapshot(expert, epoch, ctx.device)
        logits = torch.cat([flat(theta, part) for part in images.split(256)])
        correct = (logits.argmax(1) == labels).float()[:, None]
        total_correct, total, count = total_correct + correct * logits, total + logits, count + correct
    return torch.where(count > 0, total_correct / count.clamp_min(1), total / len(buffer))


@torch.no_grad()
def _logits(flat: FunctionalNetwork, theta: Tensor, real: RealSet, index: Tensor) -> Tensor:
    parts = [flat(theta, real.train.inputs(part)) for part in index.split(256)]
    return torch.cat(parts) if parts else torch.zeros(0, real.num_classes, device=theta.device)
