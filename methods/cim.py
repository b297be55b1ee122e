"""CIM: mosaics of real images, moved until each cell has the features of its own image (ECCV 2026)."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dd_bench.api import (
    Architecture,
    Augment,
    DistillContext,
    ImageSet,
    Network,
    RealSet,
    Shard,
    State,
    Teacher,
    at_least_float32,
    class_labels,
    parse,
)

from ._arguments import check_at_least, check_choice
from ._recovery.guided import Guided
from ._recovery.patches import arranged
from ._recovery.ranked import Rank, ranked_images

DISTANCES = ("l1", "l2")


class CIM(Guided):
    """Pack real images into mosaics, and match the features of their enlarged cells with those of the images.

        for each class c:
            anchors = ipc factor^2 real images of the smallest loss under the teacher, among the first images of c
            mosaic: anchor number k * ipc + i, shrunk by nearest neighbours, is cell k of image i; delta = 0
            for step in range(iterations):
                cells = each cell of mosaic + delta, enlarged bilinearly
                loss = sum over anchors j of the mean over features of |F(A(anchor_j)) - F(A(cell_j))|
                delta = AdamW(gradient of the loss), with a constant rate
            image = clamp(mosaic + delta)

    `F` is the teacher up to `layer`. `A` is one flip, crop and cutout per step for all anchors and cells. With a factor
    of 1, the cells are the anchors and nothing moves.

    Deviations from the released code: Images are clamped and stored with 8 bits. The released code stores float32
    values that leave the range of pixels. Deviation from the paper: It prints a squared L2 distance (`distance: l2`),
    its code has L1. The code has no licence, so this was written from a description of the algorithm.
    """

    citation = "Condensing Large-Scale Datasets Directly with Minimal Information Loss (CIM), ECCV 2026"
    smoke: ClassVar[dict[str, Any]] = {"iterations": 3, "lr_img": 0.1}

    def __init__(
        self,
        *,
        factor: int,
        iterations: int,
        lr_img: float,
        weight_decay_img: float,
        layer: int | str,
        distance: Literal["l1", "l2"],
        augment: str,
        rank: dict[str, Any],
    ):
        """See `conf/method/cim.yaml` for the arguments.

        Raises:
            ValueError: A value is unknown or out of range.
        """
        check_at_least(1, factor=factor)
        check_choice("distance", distance, DISTANCES)
        self.factor, self.iterations, self.lr_img = factor, iterations, lr_img
        self.weight_decay_img, self.layer, self.distance, self.augment = (
            weight_decay_img,
            layer,
            distance,
            augment,
        )
        self.rank = parse(Rank, rank, "method.rank")

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture):
            return reason
        _, h, w = real.shape
        if h % self.factor or w % self.factor:
            return f"method.factor must divide the sides of {h}x{w} images, got {self.factor}. Use method.factor=1"
        return self.rank.check(real, ipc, ipc * self.factor**2)

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> ImageSet:
        """See `Method`."""
        teacher = ctx.teachers_of(real)[0]
        index = ranked_images(real, ipc * self.factor**2, teacher, self.rank, ctx)
        units = {
            f"class{c}": partial(self._class, real, c, index[c], teacher) for c in range(real.num_classes)
        }
        shards = ctx.shards(units)
        pixels = torch.cat([shards[name]["pixels"] for name in units])
        return ImageSet.of(real, pixels, class_labels(real, ipc, pixels.device), "pixel")

    def _class(self, real: RealSet, c: int, index: Tensor, teacher: Teacher, ctx: DistillContext) -> Shard:
        """Return the images of class `c` as `pixels`, uint8 `(ipc, channels, h, w)`; `index` are the anchors."""
        anchors = real.train.pixels(index).float() / 255  # (ipc * factor^2, channels, h, w)
        start = mosaics(anchors, self.factor)
        delta, name = torch.zeros_like(start).requires_grad_(), f"class{c}"
        optimizer = torch.optim.AdamW([delta], self.lr_img, weight_decay=self.weight_decay_img)
        augment = Augment(self.augment, flip_allowed=real.flip, style="idc")
        state: State = {"delta": delta, "optimizer": optimizer}

        def stored() -> Tensor:
            return ((start + delta.detach()).clamp(0, 1) * 255).round().to(torch.uint8)

        def preview() -> ImageSet:
            return ImageSet.of(real, stored(), torch.full((len(start),), c), "pixel")

        for step in ctx.steps(self.iterations, state, name, preview=preview):
            draw = augment.draw(1, ctx.stream(name, "view", step))  # one for all images
            with torch.no_grad():
                target = features(
                    teacher.net, augment.apply(real.preprocess(anchors)[None], draw)[0], self.layer
                )
            enlarged = real.preprocess(cells(start + delta, self.factor))
            moved = features(teacher.net, augment.apply(enlarged[None], draw)[0], self.layer)
            loss = paired_distance(target, moved, self.distance)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            ctx.log(loss=loss)
        return {"pixels": stored()}


def mosaics(anchors: Tensor, factor: int) -> Tensor:
    """Return mosaics `(n / factor^2, c, h, w)` of anchors `(n, c, h, w)`, which are shrunk by nearest neighbours.

    With i mosaics, anchor number k * i + j is cell k (row by row) of mosaic j.
    """
    _, channels, h, w = anchors.shape
    small = F.interpolate(anchors, (h // factor, w // factor), mode="nearest")
    return arranged(small, len(anchors) // factor**2, factor, (channels, h, w))


def cells(images: Tensor, factor: int) -> Tensor:
    """Return the cells of mosaics `(i, c, h, w)`, enlarged bilinearly, in the order of the anchors."""
    i, c, h, w = images.shape
    parts = images.view(i, c, factor, h // factor, factor, w // factor).permute(2, 4, 0, 1, 3, 5)
    return F.interpolate(
        parts.reshape(-1, c, h // factor, w // factor), (h, w), mode="bilinear", align_corners=False
    )


def features(net: Network, x: Tensor, layer: int | str) -> Tensor:
    """Return the features of inputs `(n, c, h, w)`, `(n, d)` in float32 or more; differentiable in `x`.

    Args:
        net: a frozen network in eval mode.
        x: the inputs.
        layer: `embedding`, the input of the last layer; the number of an activation map, see `Network.activations`; or
            the name of a module of the network, whose input is used.

    Raises:
        ValueError: the network has no such map or module.
    """
    if layer == "embedding":
        return at_least_float32(net.embed(x).flatten(1))
    if isinstance(layer, int):
        maps, _ = net.activations(x)
        if not -len(maps) <= layer < len(maps):
            raise ValueError(
                f"method.layer must be embedding, a number from {-len(maps)} to {len(maps) - 1}, or the name of a "
                f"module, got {layer}. Use method.layer=embedding"
            )
        return at_least_float32(maps[layer].flatten(1))
    module = dict(net.named_modules()).get(layer)
    if module is None:
        raise ValueError(
            f"method.layer must be embedding, a number, or the name of a module of the teacher "
            f"({', '.join(_names(net)[:8])}, ...), got {layer}. Use method.layer=embedding"
        )
    found: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _module, inputs: found.append(inputs[0]))
    try:
        net(x)
    finally:
        handle.remove()
    return at_least_float32(found[0].flatten(1))


def _names(net: nn.Module) -> list[str]:
    return [name for name, _ in net.named_modules() if name]


def paired_distance(target: Tensor, moved: Tensor, distance: Literal["l1", "l2"]) -> Tensor:
    """Return the sum over pairs of the mean over features of |difference| (`l1`) or its square (`l2`), 0-d.

    Args:
        target: features of the anchors, `(n, d)`.
        moved: features of the cells, `(n, d)`.
        distance: `l1` or `l2`.
    """
    difference = target - moved
    each = difference.abs() if distance == "l1" else difference.square()
    return each.mean(1).sum()
