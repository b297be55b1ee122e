"""RDED's images: the patches that a teacher finds most realistic, a grid of them an image (Sun et al., CVPR 2024)."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torchvision.transforms.v2.functional import resized_crop

from dd_bench.api import DistillContext, RealSet, Shard, Teacher, boxes, check_class_sizes


class Patches(BaseModel):
    """The keys of `method.patches`.

    Attributes:
        factor: patches a side of an image; 1 for small images.
        images: real images of a class that patches are cut from.
        crops: patches tried an image, of which the best is kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    factor: int = Field(ge=1)
    images: int = Field(ge=1)
    crops: int = Field(ge=1)

    def check(self, real: RealSet, ipc: int) -> str | None:
        """Returns why `ipc` images of patches cannot be cut from each class of `real`, or None."""
        cells = ipc * self.factor**2
        if reason := check_class_sizes(real, ipc, cells):
            return reason
        if cells > self.images:
            return (
                f"ipc={ipc} is {cells} patches a class, cut from method.patches.images={self.images}. "
                f"Use method.patches.images={cells} or more"
            )
        return None


def composites(real: RealSet, ipc: int, observer: Teacher, how: Patches, ctx: DistillContext) -> Tensor:
    """Returns `ipc` images of patches of every class, uint8 `(k, ipc, c, h, w)`; a class is a shard."""
    units = {
        f"patches{c}": partial(class_composites, real, ipc, c, observer, how) for c in range(real.num_classes)
    }
    shards = ctx.shards(units)
    return torch.stack([shards[name]["pixels"] for name in units])


def class_composites(
    real: RealSet, ipc: int, c: int, observer: Teacher, how: Patches, ctx: DistillContext
) -> Shard:
    """Returns `ipc` images of class `c` as `pixels`, uint8 `(ipc, channels, h, w)`.

    Keeps the crop of the smallest cross-entropy of each real image, and of those the best ipc factor^2; the best of
    them fill the first cell of all images. The observer sees a patch in the middle of an empty image.
    """
    index, of = real.train.of_class(c), ctx.stream("patches", c).host
    index = index[torch.randperm(len(index), generator=of)[: how.images].to(index.device)]
    best, scores = [], []
    for part in index.split(max(1, 1000 // how.crops)):
        patches = _crops(real.train.inputs(part), how, of)  # (b, crops, channels, side, side)
        score = _realism(patches.flatten(0, 1), c, real.shape, observer).view(len(part), how.crops)
        top = score.argmax(1)
        best.append(patches[torch.arange(len(part), device=patches.device), top])
        scores.append(score.gather(1, top[:, None])[:, 0])
    rank = torch.cat(scores).argsort(descending=True, stable=True)[: ipc * how.factor**2]
    chosen = torch.cat(best)[rank]
    pixels = real.preprocess.inverse(arranged(chosen, ipc, how.factor, real.shape)).clamp(0, 1)
    return {"pixels": (pixels * 255).round().to(torch.uint8)}


def _crops(x: Tensor, how: Patches, of: torch.Generator) -> Tensor:
    """Cuts square patches, 8 to 100 % of each image `(b, c, h, w)`, and resizes them to a cell."""
    h, w = x.shape[2:]
    cell = [h // how.factor, w // how.factor]
    u = torch.rand(len(x) * how.crops, 22, generator=of)
    box = boxes((h, w), (0.08, 1.0), u, ratio=(1.0, 1.0)).view(len(x), how.crops, 4).tolist()
    return torch.stack(
        [
            torch.stack([resized_crop(image, *corner, cell, antialias=True) for corner in row])
            for image, row in zip(x, box, strict=True)
        ]
    )


def _realism(patches: Tensor, c: int, shape: tuple[int, int, int], observer: Teacher) -> Tensor:
    """Returns minus the cross-entropy of class `c` for each patch, `(n,)`."""
    rows, cols = shape[1] - patches.shape[2], shape[2] - patches.shape[3]
    padded = F.pad(patches, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2))
    y = torch.full((len(patches),), c, device=patches.device)
    return -F.cross_entropy(observer.logits(padded, exact=True), y, reduction="none")


def arranged(chosen: Tensor, ipc: int, factor: int, shape: tuple[int, int, int]) -> Tensor:
    """Puts patches, the best first, into grids: cell k of image i is number k ipc + i. `(ipc, c, h, w)`."""
    h, w = shape[1:]
    cells = chosen.unflatten(0, (factor, factor, ipc)).permute(2, 3, 0, 4, 1, 5)  # (ipc, c, f, side, f, side)
    grid = cells.flatten(4, 5).flatten(2, 3)
    return grid if grid.shape[2:] == (h, w) else F.interpolate(grid, (h, w), mode="nearest")
