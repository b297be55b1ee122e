"""Batched, differentiable image augmentation on the device, as in DSA (Zhao and Bilen, ICML 2021).

Drawing and applying are separate. `draw` draws one op and its random values for each group of images, e.g. the images
of one class. `apply` is a pure function of the images and the result of `draw`. To augment the real and the synthetic
batch of a class in the same way, apply the same `Draw` to both; no generator has to be reset.

There are two implementations of `apply`. `grouped` reads the drawn ops and computes only these, which is fastest on the
CPU. `masked` computes all ops by a fixed sequence of kernels (`dd_bench.training.masked_augment`), so that a GPU never
waits. They give the same images up to rounding.

Images are network inputs. They are padded with zeros, which is the mean colour and not black.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dd_bench.runtime.seeding import Stream
from dd_bench.training.masked_augment import MaskedAugment, hole_side
from dd_bench.training.sampling import sample_bilinear

Implementation = Literal["grouped", "masked"]
BoxKind = Literal["exact", "truncated"]
OPS = ("color", "crop", "cutout", "flip", "scale", "rotate")
IDC_ALWAYS = ("flip", "color", "cutout")


@dataclass(frozen=True)
class Draw:
    """The randomly drawn augmentation of `g` groups of images.

    Attributes:
        op: index into `Augment.choices`, `(g,)`, on the device.
        values: uniform numbers in [0, 1) on the device: `(g, 3)`, or `(g, b, 3)` if each image has its own numbers.
        always: for each op that is always applied (style `idc`), its name and numbers like `values`.
    """

    op: Tensor
    values: Tensor
    always: dict[str, Tensor]

    def __getitem__(self, groups: slice) -> Draw:
        """Return the draw of a slice of the groups."""
        return Draw(self.op[groups], self.values[groups], {k: v[groups] for k, v in self.always.items()})

    @staticmethod
    def stack(draws: Sequence[Draw]) -> Draw:
        """Return the draw of the groups of all `draws`, e.g. one group for each of several random streams."""
        always = {name: torch.cat([d.always[name] for d in draws]) for name in draws[0].always}
        return Draw(torch.cat([d.op for d in draws]), torch.cat([d.values for d in draws]), always)


class Augment:
    """Apply one op, drawn uniformly from a list, to each group of images.

    The strategy is a list of ops joined by underscores, such as `color_crop_cutout_flip_scale_rotate`. In the style
    `dsa` (DC, DSA, DM, MTT) exactly one op is applied. In the style `idc` (IDC, NCFM) flip, color and cutout are always
    applied if they are listed, and one more op is drawn from the others and applied before cutout.

    Source: DSA's released strategy, mode S. Deviations: none are known in the distribution of the images. The random
    numbers come from an explicit `Draw` and not from a global seed.
    """

    def __init__(
        self, strategy: str, *, flip_allowed: bool = True, style: str = "dsa", align_corners: bool = False
    ):
        """Parse the strategy; "none" or "" means no augmentation. Without `flip_allowed`, the op `flip` is ignored.

        Raises:
            ValueError: the strategy contains an unknown op.
        """
        names = [] if strategy in ("", "none") else strategy.split("_")
        unknown = [n for n in names if n not in OPS]
        if unknown:
            raise ValueError(
                f"the augmentation must be none, or some of {', '.join(OPS)} joined by _, got {unknown[0]!r} in "
                f"{strategy!r}. Example: {'_'.join(OPS[:2])}"
            )
        names = [n for n in names if n != "flip" or flip_allowed]
        self.always = tuple(n for n in IDC_ALWAYS if n in names) if style == "idc" else ()
        self.choices = tuple(n for n in names if n not in self.always)
        self.align_corners = align_corners
        self._masked = MaskedAugment(self.always, self.choices, align_corners)

    def __bool__(self) -> bool:
        return bool(self.choices or self.always)

    def draw(self, groups: int, stream: Stream, per_image: int | None = None) -> Draw:
        """Draw the augmentation of `groups` groups; with `per_image=b`, each of the b images has its own values."""
        shape = (groups, 3) if per_image is None else (groups, per_image, 3)
        generator, device = stream.device, stream.device.device
        op = torch.randint(max(1, len(self.choices)), (groups,), generator=generator, device=device)
        values = [torch.rand(shape, generator=generator, device=device) for _ in range(1 + len(self.always))]
        return Draw(op, values[0], dict(zip(self.always, values[1:], strict=True)))

    def apply(self, x: Tensor, draw: Draw, implementation: Implementation | None = None) -> Tensor:
        """Augment groups of images `(g, b, c, h, w)`; differentiable in `x`.

        The number of kernels does not grow with g. By default, the implementation is `grouped` on the CPU, and `masked`
        on other devices; `grouped` would wait for a GPU.
        """
        if not self:
            return x
        if (implementation or ("grouped" if x.device.type == "cpu" else "masked")) == "grouped":
            return self._grouped(x, draw)
        values = [draw.values, *(draw.always[name] for name in self.always)]
        u = torch.cat(values, -1) if self.always else draw.values
        return self._masked.apply(x, draw.op, u[:, None] if u.ndim == 2 else u)

    def _grouped(self, x: Tensor, draw: Draw) -> Tensor:
        """Process groups with the same op together."""
        g, b = x.shape[:2]
        for name in ("flip", "color"):
            if name in draw.always:
                x = self._one(name, x.flatten(0, 1), _per_image(draw.always[name], g, b)).view_as(x)
        if self.choices:
            x = self._chosen(x, draw)
        if "cutout" in draw.always:
            x = self._one("cutout", x.flatten(0, 1), _per_image(draw.always["cutout"], g, b)).view_as(x)
        return x

    def _chosen(self, x: Tensor, draw: Draw) -> Tensor:
        g, b = x.shape[:2]
        present = draw.op.unique().tolist()
        if len(present) == 1:
            return self._one(
                self.choices[present[0]], x.flatten(0, 1), _per_image(draw.values, g, b)
            ).view_as(x)
        parts, order = [], []
        for op in present:
            groups = (draw.op == op).nonzero().flatten()
            part = x[groups]  # (g', b, c, h, w)
            values = _per_image(draw.values[groups], len(groups), b)
            parts.append(self._one(self.choices[op], part.flatten(0, 1), values).view_as(part))
            order.append(groups)
        return torch.cat(parts)[torch.cat(order).argsort()]

    def _one(self, name: str, x: Tensor, u: Tensor) -> Tensor:
        """Apply op `name` to images `(n, c, h, w)` with uniform numbers `(n, 3)`."""
        if name in ("scale", "rotate"):
            return _affine(x, _scale(u) if name == "scale" else _rotation(u), self.align_corners)
        return {"color": _color, "crop": _crop, "cutout": _cutout, "flip": _flip}[name](x, u)

    def batch(self, x: Tensor, stream: Stream) -> Tensor:
        """Augment a batch `(n, c, h, w)` for training: one op for all images, with random values for each image."""
        if not self:
            return x
        return self.apply(x[None], self.draw(1, stream, per_image=len(x)))[0]


def _per_image(values: Tensor, g: int, b: int) -> Tensor:
    """Expand the values of g groups `(g, 3)`, or of their images `(g, b, 3)`, to one row per image, `(g * b, 3)`."""
    return (values[:, None].expand(g, b, 3) if values.ndim == 2 else values).reshape(g * b, 3)


def _color(x: Tensor, u: Tensor) -> Tensor:
    """Change brightness, saturation and contrast, in this order.

    Brightness adds U(-.5, .5). Saturation scales the deviation from the mean over a pixel's channels by U(0, 2).
    Contrast scales the deviation from the mean over the image by U(.5, 1.5).
    """
    brightness, saturation, contrast = (u[:, i].view(-1, 1, 1, 1).to(x.dtype) for i in range(3))
    x = x + (brightness - 0.5)
    if x.shape[1] > 1:  # saturation of one channel is the identity
        mean = x.mean(1, keepdim=True)
        x = (x - mean) * (2 * saturation) + mean
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (contrast + 0.5) + mean


def _crop(x: Tensor, u: Tensor) -> Tensor:
    """Shift each axis independently by -round(size / 8) to round(size / 8) pixels, and fill with zeros."""
    rows, cols = (shift_index(side, int(side * 0.125 + 0.5), u[:, i]) for i, side in enumerate(x.shape[2:]))
    return gather_pixels(x, rows, cols)


def shift_index(size: int, limit: int, u: Tensor) -> Tensor:
    """Return the source index of each row after a shift by -`limit` to `limit` rows, `(n, size)`.

    The index `size` marks an empty row. Call the function with the width as `size` for columns.
    """
    shift = (u * (2 * limit + 1)).floor().long().clamp_(max=2 * limit) - limit
    source = torch.arange(size, device=u.device)[None] + shift[:, None]
    return source.masked_fill((source < 0) | (source >= size), size)


def gather_pixels(x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Gather rows `(n, h)` and columns `(n, w)` of images `(n, c, h, w)`; index h or w gives zeros."""
    padded = F.pad(x, (0, 1, 0, 1))
    n = torch.arange(len(x), device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[n, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)


def _cutout(x: Tensor, u: Tensor) -> Tensor:
    """Zero a square with half the side of the image. Its centre is uniform, and it is clipped at the borders."""
    _, _, h, w = x.shape
    inside = _span(h, u[:, 0])[:, :, None] & _span(w, u[:, 1])[:, None, :]
    return x.masked_fill(inside[:, None], 0.0)


def _span(size: int, u: Tensor) -> Tensor:
    side = hole_side(size)
    centres = size + 1 - side % 2  # a square of even side may be centred on the far border
    centre = (u * centres).floor().long().clamp_(max=centres - 1)
    position = torch.arange(size, device=u.device)[None]
    start = (centre - side // 2)[:, None]
    return (position >= start) & (position < start + side)


def _flip(x: Tensor, u: Tensor) -> Tensor:
    """Mirror each image with probability one half."""
    return torch.where((u[:, 0] < 0.5).view(-1, 1, 1, 1), x.flip(3), x)


def _scale(u: Tensor) -> Tensor:
    """Return `(n, 2, 3)` matrices that scale each axis of the sampling grid by U(1/1.2, 1.2).

    A factor above 1 shrinks the content.
    """
    factor = u[:, :2] * (1.2 - 1 / 1.2) + 1 / 1.2
    zero = torch.zeros_like(factor[:, 0])
    return torch.stack([factor[:, 0], zero, zero, zero, factor[:, 1], zero], 1).view(-1, 2, 3)


def _rotation(u: Tensor) -> Tensor:
    """Return `(n, 2, 3)` matrices that rotate the sampling grid by U(-15, 15) degrees."""
    angle = (u[:, 0] - 0.5) * (2 * 15 * torch.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)


def _affine(x: Tensor, theta: Tensor, align_corners: bool) -> Tensor:
    grid = F.affine_grid(theta.to(x.dtype), list(x.shape), align_corners=align_corners)
    return sample_bilinear(x, grid, align_corners=align_corners)


@dataclass(frozen=True)
class MixDraw:
    """The random numbers that mix the images of a batch in pairs, or those of the batches of g networks.

    Attributes:
        partner: index of the image that each image is mixed with, `(g * b,)`.
        keep: share of an image in its mixture, in [0, 1], before the box is rounded and clipped, `()` or `(g,)`. With
            1, the images do not change.
        centre: uniform numbers for the position of CutMix's box, `(2,)` or `(g, 2)`.
    """

    partner: Tensor
    keep: Tensor
    centre: Tensor

    @classmethod
    def draw(cls, n: int, generator: torch.Generator, beta: float) -> MixDraw:
        """Draw the numbers of a batch of `n` images on the device of the generator."""
        device = generator.device
        partner = torch.randperm(n, generator=generator, device=device)
        keep = beta_sample(beta, generator)
        return cls(partner, keep, torch.rand(2, generator=generator, device=device))

    @classmethod
    def none(cls, n: int) -> MixDraw:
        """Return the numbers that leave a batch of `n` images unchanged."""
        return cls(torch.arange(n), torch.ones(()), torch.zeros(2))

    @classmethod
    def join(cls, draws: Sequence[MixDraw]) -> MixDraw:
        """Return the numbers of the batches of several networks, as one batch."""
        b = len(draws[0].partner)
        partner = torch.cat([d.partner + i * b for i, d in enumerate(draws)])
        return cls(partner, torch.stack([d.keep for d in draws]), torch.stack([d.centre for d in draws]))


def cutmix(
    x: Tensor, generator: torch.Generator, beta: float, box: BoxKind = "exact"
) -> tuple[Tensor, Tensor, Tensor]:
    """CutMix (Yun et al., 2019): paste one random box of the shuffled batch into the batch `(n, c, h, w)`.

    `box` is how the box is rounded to pixels, see `cutmix_box`.

    Returns:
        The mixed images, the index of each image's partner `(n,)`, and the share of the pixels that an image keeps,
        0-d in [0, 1].
    """
    draw = MixDraw.draw(len(x), generator, beta)
    inside = cutmix_box((x.shape[2], x.shape[3]), draw.keep, draw.centre, box)
    return torch.where(inside, x[draw.partner], x), draw.partner, 1 - inside.float().mean()


def cutmix_box(size: tuple[int, int], keep: Tensor, centre: Tensor, kind: BoxKind) -> Tensor:
    """Return the pixels inside CutMix's box, bool `(..., h, w)`.

    Each side of the box is sqrt(1 - keep) times that of the image. The box is clipped at the borders.

    - `exact`: the pixels whose centres lie inside.
    - `truncated`: half of each side, and the centre, are rounded down to whole pixels, as in the released code of
      CutMix, SRe2L, RDED, IDC and NCFM. The box is smaller, by up to two pixels per side.

    Args:
        size: height and width of the image.
        keep: area outside the box, relative to the image, before rounding and clipping; `(...,)` in [0, 1].
        centre: uniform numbers in [0, 1) for the position of the centre, `(..., 2)`.
        kind: how the box is rounded.
    """
    share, inside = (1 - keep).sqrt()[..., None], []
    for side, middle in zip(size, centre.split(1, dim=-1), strict=True):
        position = torch.arange(side, device=centre.device)
        if kind == "exact":
            # division by a tensor: CUDA multiplies by the reciprocal of a number, which is rounded differently
            pixel = (position + 0.5) / torch.full((), side, dtype=centre.dtype, device=centre.device)
            inside.append((pixel - middle).abs() < share / 2)
        else:
            half = torch.div((side * share).floor(), 2, rounding_mode="floor")
            pixel = (middle * side).floor().clamp(max=side - 1)
            inside.append((position >= pixel - half) & (position < pixel + half))
    rows, cols = inside
    return torch.logical_and(rows[..., :, None], cols[..., None, :])


def beta_sample(beta: float, generator: torch.Generator) -> Tensor:
    """Draw a 0-d sample of Beta(beta, beta), which is U(0, 1) for beta = 1."""
    if beta == 1:
        return torch.rand((), generator=generator, device=generator.device)
    pair = torch._standard_gamma(torch.full((2,), beta, device=generator.device), generator=generator)
    return pair[0] / pair.sum()
