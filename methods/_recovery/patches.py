"""RDED's images: grids of the patches that a teacher rates as most realistic (Sun et al., CVPR 2024)."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torchvision.transforms.v2.functional import resized_crop

from dd_bench.api import (
    DistillContext,
    Pick,
    RealSet,
    Shard,
    Teacher,
    boxes,
    check_class_sizes,
    select_ranked,
    to_device,
)


class Patches(BaseModel):
    """The keys of `method.patches`.

    Attributes:
        factor: Patches per side of an image; 1 for small images.
        images: Number of real images per class that patches are cut from.
        crops: Number of candidate patches per real image, of which the best is selected.
        pick: Which of the selected patches fill the images: `easy`, the most realistic ones, as in RDED; `medium`,
            those from the median on both sides; or `hard`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    factor: int = Field(ge=1)
    images: int = Field(ge=1)
    crops: int = Field(ge=1)
    pick: Pick = (
        "easy"  # added later; the YAML files of older methods do not contain it, so their keys stay valid
    )

    def check(self, real: RealSet, ipc: int) -> str | None:
        """Return why `ipc` images of patches cannot be composed for each class of `real`, or None."""
        cells = ipc * self.factor**2
        if reason := check_class_sizes(real, ipc, cells):
            return reason
        if cells > self.images:
            return (
                f"method.patches.images must be >= {cells} for ipc={ipc} with method.patches.factor={self.factor}, "
                f"got {self.images}. Example: method.patches.images={cells}"
            )
        return None


def composites(real: RealSet, ipc: int, observer: Teacher, settings: Patches, ctx: DistillContext) -> Tensor:
    """Compose `ipc` images of patches for every class, uint8 `(k, ipc, c, h, w)`; each class is one shard."""
    units = {
        f"patches{c}": partial(class_composites, real, ipc, c, observer, settings)
        for c in range(real.num_classes)
    }
    shards = ctx.shards(units)
    return torch.stack([shards[name]["pixels"] for name in units])


def class_composites(
    real: RealSet, ipc: int, c: int, observer: Teacher, settings: Patches, ctx: DistillContext
) -> Shard:
    """Compose `ipc` images of class `c` as `pixels`, uint8 `(ipc, channels, h, w)`.

    The crop with the smallest cross-entropy is selected from each real image. Of these crops, ipc * factor^2 fill the
    images, by default those with the smallest cross-entropy. The first ipc crops are in the first cells of the images.
    To rate a crop, it is placed at the centre of an image of the mean colour, and the `observer` network classifies
    this image.
    """
    index, generator = real.train.of_class(c), ctx.stream("patches", c).host
    order = torch.randperm(len(index), generator=generator)[: settings.images]
    index = index[to_device(order, index.device)]
    best, scores = [], []
    for part in index.split(max(1, 1000 // settings.crops)):
        patches = _crops(real.train.inputs(part), settings, generator)  # (b, crops, channels, side, side)
        score = _realism(patches.flatten(0, 1), c, real.shape, observer).view(len(part), settings.crops)
        top = score.argmax(1)
        best.append(patches[torch.arange(len(part), device=patches.device), top])
        scores.append(score.gather(1, top[:, None])[:, 0])
    rank = select_ranked(-torch.cat(scores), ipc * settings.factor**2, settings.pick)
    chosen = torch.cat(best)[rank]
    pixels = real.preprocess.inverse(arranged(chosen, ipc, settings.factor, real.shape)).clamp(0, 1)
    return {"pixels": (pixels * 255).round().to(torch.uint8)}


def _crops(x: Tensor, settings: Patches, generator: torch.Generator) -> Tensor:
    """Cut `crops` square patches of 8 to 100 % of the area from each image `(b, c, h, w)`; resize them to a cell."""
    h, w = x.shape[2:]
    cell = [h // settings.factor, w // settings.factor]
    u = torch.rand(len(x) * settings.crops, 22, generator=generator)
    box = boxes((h, w), (0.08, 1.0), u, ratio=(1.0, 1.0)).view(len(x), settings.crops, 4).tolist()
    return torch.stack(
        [
            torch.stack([resized_crop(image, *corner, cell, antialias=True) for corner in row])
            for image, row in zip(x, box, strict=True)
        ]
    )


def _realism(patches: Tensor, c: int, shape: tuple[int, int, int], observer: Teacher) -> Tensor:
    """Return the negative cross-entropy of class `c` for each patch, `(n,)`."""
    rows, cols = shape[1] - patches.shape[2], shape[2] - patches.shape[3]
    padded = F.pad(patches, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2))
    y = torch.full((len(patches),), c, device=patches.device)
    return -F.cross_entropy(observer.logits(padded, exact=True), y, reduction="none")


def arranged(chosen: Tensor, ipc: int, factor: int, shape: tuple[int, int, int]) -> Tensor:
    """Arrange patches, sorted from best to worst, in grids `(ipc, c, h, w)`: cell k of image i is patch k * ipc + i."""
    h, w = shape[1:]
    cells = chosen.unflatten(0, (factor, factor, ipc)).permute(2, 3, 0, 4, 1, 5)  # (ipc, c, f, side, f, side)
    grid = cells.flatten(4, 5).flatten(2, 3)
    return grid if grid.shape[2:] == (h, w) else F.interpolate(grid, (h, w), mode="nearest")
