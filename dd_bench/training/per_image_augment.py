"""The augmentation of DC's released evaluation (Zhao et al., ICLR 2021): one op for each image, drawn from a list.

It is used for MNIST (`crop_scale_rotate`) and for ConvNets with BatchNorm (`crop_noise`). It is not differentiable, as
it augments training batches only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from dd_bench.runtime.seeding import Stream
from dd_bench.runtime.transfer import constant, to_device
from dd_bench.training.augment import Implementation, gather_pixels

OPS = ("crop", "scale", "rotate", "noise")
PAD = 4
"""Pixels that `crop` adds on each side."""
SCALE = 0.2
DEGREES = 45
NOISE = 0.001


@dataclass(frozen=True)
class PerImageDraw:
    """The random numbers of `n` images.

    Attributes:
        op: index of the op of each image, `(n,)`.
        u: uniform numbers in [0, 1), `(n, 2)`.
        noise: standard normal numbers of all pixels, `(n, c, h, w)`, if `noise` is one of the ops.
    """

    op: Tensor
    u: Tensor
    noise: Tensor | None

    @staticmethod
    def stack(draws: Sequence[PerImageDraw]) -> PerImageDraw:
        """Return the draws of the images of all `draws`."""
        noise = [d.noise for d in draws if d.noise is not None]
        return PerImageDraw(
            torch.cat([d.op for d in draws]),
            torch.cat([d.u for d in draws]),
            torch.cat(noise) if noise else None,
        )


class PerImageAugment:
    """Apply one op, drawn uniformly from a list, to each image of a batch.

    The fill colours are the means of each channel over the batch.

    - `crop`: pad by 4 pixels of the fill colour, and cut out the original size at a uniform offset in 0..7 per axis.
    - `scale`: resize each side by a factor U(0.8, 1.2) by nearest neighbour, and pad with zeros or crop at the centre.
    - `rotate`: rotate by a uniform integer of degrees in [-45, 45) by cubic splines, and crop the centre. Pixels from
      outside the image get the mean of the fill colours.
    - `noise`: add N(0, 0.001^2).

    Source: `augment` and `get_daparam` of VICO-UoE/DatasetCondensation@2326d16 utils.py. Deviations: none are known for
    square images. Both sides of other images are resized relative to themselves, not to the height.
    """

    def __init__(self, strategy: str):
        """Parse the strategy, ops joined by underscores; "none" or "" means no augmentation.

        Raises:
            ValueError: the strategy contains an unknown op.
        """
        self.ops = () if strategy in ("", "none") else tuple(strategy.split("_"))
        unknown = [op for op in self.ops if op not in OPS]
        if unknown:
            raise ValueError(
                f"unknown augmentation {unknown[0]!r} in {strategy!r} with augment_style=per_image. "
                f"Use none, or some of {'_'.join(OPS)}"
            )

    def __bool__(self) -> bool:
        return bool(self.ops)

    @property
    def draws_pixels(self) -> bool:
        """Whether `draw` needs the shape of the images, because `noise` has a number for each pixel."""
        return "noise" in self.ops

    def draw(self, n: int, generator: torch.Generator, shape: Sequence[int] = ()) -> PerImageDraw:
        """Draw the ops and the numbers of `n` images on the device of the generator.

        `shape` is the shape `(c, h, w)` of an image, if `draws_pixels`.
        """
        device = generator.device
        op = torch.randint(max(1, len(self.ops)), (n,), generator=generator, device=device)
        u = torch.rand(n, 2, generator=generator, device=device)
        noise = torch.randn(n, *shape, generator=generator, device=device) if self.draws_pixels else None
        return PerImageDraw(op, u, noise)

    def apply(
        self,
        x: Tensor,
        draw: PerImageDraw,
        g: int = 1,
        implementation: Implementation | None = None,
    ) -> Tensor:
        """Augment the batches of g networks, `(g * b, c, h, w)`, with the draws of each network in turn.

        By default, the implementation is `grouped` on the CPU, which applies each op to its images only, and `masked`
        on other devices, which applies each op to all images, so that it never waits for the device.

        Args:
            x: the images.
            draw: the draws of all images.
            g: number of networks.
            implementation: see above.
        """
        fill = x.unflatten(0, (g, -1)).mean((1, 3, 4)).repeat_interleave(len(x) // g, 0)  # (n, c)
        out = x.clone()
        masked = (implementation or ("grouped" if x.device.type == "cpu" else "masked")) == "masked"
        for i, name in enumerate(self.ops):
            if masked:
                chosen = (draw.op == i)[:, None, None, None]
                out = torch.where(chosen, _apply(name, x, draw.u, fill, draw.noise), out)
            elif len(index := (draw.op == i).nonzero().flatten()):
                noise = None if draw.noise is None else draw.noise[index]
                out[index] = _apply(name, x[index], draw.u[index], fill[index], noise)
        return out

    def batch(self, x: Tensor, stream: Stream, implementation: Implementation | None = None) -> Tensor:
        """Augment a batch `(n, c, h, w)` of one network, see `apply`."""
        if not self:
            return x
        return self.apply(x, self.draw(len(x), stream.device, x.shape[1:]), implementation=implementation)


def _apply(name: str, x: Tensor, u: Tensor, fill: Tensor, noise: Tensor | None) -> Tensor:
    """Apply one op to images `(n, c, h, w)`, with uniform numbers `u (n, 2)` and fill colours `(n, c)`."""
    if name == "crop":
        return crop(x, (u * 2 * PAD).floor().long(), fill)
    if name == "scale":
        return scale(x, 1 - SCALE + 2 * SCALE * u)
    if name == "rotate":
        return rotate(x, (u[:, 0] * 2 * DEGREES).floor() - DEGREES, fill.mean(1))
    assert noise is not None, "`draw` draws it if `noise` is one of the ops"
    return x + NOISE * noise


def crop(x: Tensor, offset: Tensor, fill: Tensor) -> Tensor:
    """Pad images `(n, c, h, w)` by 4 pixels on each side, and crop them to their size at `offset (n, 2)`, 0 to 7.

    The fill colours are `(c,)`, or `(n, c)` for each image.
    """
    rows, cols = (
        torch.arange(side, device=x.device) + offset[:, i : i + 1] - PAD for i, side in enumerate(x.shape[2:])
    )
    colour = fill[..., None, None]  # (c, 1, 1) or (n, c, 1, 1)
    return gather_pixels(x - colour, _inside(rows, x.shape[2]), _inside(cols, x.shape[3])) + colour


def scale(x: Tensor, factor: Tensor) -> Tensor:
    """Resize images `(n, c, h, w)` by `factor (n, 2)` by nearest neighbour, and pad or crop them at the centre."""
    sides = constant(tuple(x.shape[2:]), x.device, torch.int64)
    resized = (factor * sides).floor().long()  # (n, 2)
    canvas = torch.maximum(resized.amax(1, keepdim=True), sides.max())  # a square
    start = (canvas - sides) // 2 - (canvas - resized) // 2  # of the output in the resized image
    index = []
    for i, side in enumerate(x.shape[2:]):
        at, size = torch.arange(side, device=x.device) + start[:, i : i + 1], resized[:, i : i + 1]
        source = (
            (at * (side / size.to(torch.float32))).floor().long().clamp(max=side - 1)
        )  # as in F.interpolate
        index.append(source.masked_fill((at < 0) | (at >= size), side))
    return gather_pixels(x, *index)


def rotate(x: Tensor, degrees: Tensor, fill: Tensor) -> Tensor:
    """Rotate images `(n, c, h, w)` by `degrees (n,)`, like `scipy.ndimage.rotate` followed by a crop of the centre.

    SciPy first enlarges the image to contain all of the rotated pixels. If the difference of the sizes is odd, the crop
    is half a pixel off the centre.
    """
    h, w = x.shape[2:]
    angle = torch.deg2rad(degrees.to(torch.float64))
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    tall = (cos.abs() * h + sin.abs() * w + 0.5).floor()
    wide = (sin.abs() * h + cos.abs() * w + 0.5).floor()
    rows = torch.arange(h, device=x.device)[None, :, None] + _toward_zero(tall - h) - (tall - 1) / 2
    cols = torch.arange(w, device=x.device)[None, None, :] + _toward_zero(wide - w) - (wide - 1) / 2
    rows, cols = cos * rows + sin * cols + (h - 1) / 2, -sin * rows + cos * cols + (w - 1) / 2
    return sample_spline(x, rows, cols, fill)


def _toward_zero(difference: Tensor) -> Tensor:
    return (difference / 2).trunc()


def sample_spline(x: Tensor, rows: Tensor, cols: Tensor, fill: Tensor) -> Tensor:
    """Interpolate images `(n, c, h, w)` by cubic splines at positions `rows` and `cols`, both `(n, h', w')` in pixels.

    Positions outside [0, h - 1] and [0, w - 1] give `fill`. Same as `scipy.ndimage.map_coordinates` with order 3.
    """
    h, w = x.shape[2:]
    outside = (rows < 0) | (rows > h - 1) | (cols < 0) | (cols > w - 1)
    coefficients = spline_coefficients(h, x) @ x.to(torch.float64) @ spline_coefficients(w, x).T
    (row_index, row_weight), (col_index, col_weight) = _taps(rows, h), _taps(cols, w)
    values = coefficients.permute(0, 2, 3, 1)  # (n, h, w, c)
    n = torch.arange(len(x), device=x.device)[:, None, None]
    out = torch.zeros((*rows.shape, x.shape[1]), dtype=torch.float64, device=x.device)
    for i in range(4):
        for j in range(4):
            out += (row_weight[i] * col_weight[j])[..., None] * values[n, row_index[i], col_index[j]]
    fill = fill.view(-1, *[1] * rows.ndim)  # of each image, or one for all
    return torch.where(outside[..., None], fill.to(out.dtype), out).permute(0, 3, 1, 2).to(x.dtype)


def spline_coefficients(size: int, like: Tensor) -> Tensor:
    """Return the matrix from `size` pixels to the coefficients of their cubic spline, float64, on `like`'s device."""
    return _inverse(size, like.device)


@lru_cache(maxsize=8)
def _inverse(size: int, device: torch.device) -> Tensor:
    """Return the inverse of the matrix that evaluates a cubic B-spline at the pixels, mirrored at the borders."""
    basis = torch.zeros(size, size, dtype=torch.float64)
    for row in range(size):
        for tap, weight in ((-1, 1 / 6), (0, 4 / 6), (1, 1 / 6)):
            basis[row, _mirrored(torch.tensor(row + tap), size)] += weight
    inverse: Tensor = torch.linalg.inv(basis)
    return to_device(inverse, device)


def _taps(position: Tensor, size: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return the indices and the weights of the four coefficients around each position."""
    first = position.floor()
    t = position - first
    weights = [
        (1 - t) ** 3 / 6,
        (4 - 6 * t**2 + 3 * t**3) / 6,
        (1 + 3 * t + 3 * t**2 - 3 * t**3) / 6,
        t**3 / 6,
    ]
    return [_mirrored(first.long() + tap, size) for tap in (-1, 0, 1, 2)], weights


def _mirrored(index: Tensor, size: int) -> Tensor:
    """Mirror indices at the first and the last pixel."""
    period = max(1, 2 * (size - 1))
    index = index.remainder(period)
    return torch.minimum(index, period - index).clamp(max=size - 1)


def _inside(index: Tensor, size: int) -> Tensor:
    """Replace indices outside the image by `size`, which `gather_pixels` fills with zeros."""
    return index.masked_fill((index < 0) | (index >= size), size)
