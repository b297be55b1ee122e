"""Augmentation by a fixed sequence of kernels, for devices on which a wait or a launch costs more than arithmetic.

On the CPU, `Augment.apply` selects the kernels by the ops that were drawn. Here, every op of the strategy is computed
for every image, and an op that was not drawn has the parameters of the identity. Nothing is read from the device. The
number of kernels and all shapes depend only on the strategy and on the shape of the images, so that a CUDA graph can
capture the call. (The first call for a shape copies a table of constants to the device, so it must not be captured.)

The parameters of an image are `offset + factor * q`, where q has its random numbers, some of them rounded to integers.
Offsets and factors are a row of the table, selected by the drawn op. Scale, rotate, crop and flip are one affine map of
the sampling positions; color and cutout are arithmetic.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dd_bench.runtime.transfer import to_device
from dd_bench.training.sampling import sample_bilinear


class Parameter(NamedTuple):
    """A parameter of an op, `offset + factor * q`, and its value `identity` for images without the op.

    Attributes:
        op: name of the op.
        number: which of the op's three uniform numbers u is used.
        offset: see above.
        factor: see above.
        identity: see above.
        levels: q is `floor(u * levels)`, an integer in 0..levels-1; 0: q is u.
    """

    op: str
    number: int
    offset: float
    factor: float
    identity: float
    levels: int = 0


def op_parameters(h: int, w: int, align_corners: bool) -> dict[str, Parameter]:
    """Return the parameters of all ops for images of `h` x `w` pixels; their distributions are those of `Augment`."""
    limit_y, limit_x = (int(side * 0.125 + 0.5) for side in (h, w))  # pixels
    pixel_y, pixel_x = (2 / max(1, side - int(align_corners)) for side in (h, w))  # in normalised positions
    low, radians = 1 / 1.2, math.pi / 180
    return {
        "scale_x": Parameter("scale", 0, low, 1.2 - low, 1.0),
        "scale_y": Parameter("scale", 1, low, 1.2 - low, 1.0),
        "angle": Parameter("rotate", 0, -15 * radians, 30 * radians, 0.0),
        "shift_x": Parameter("crop", 1, -limit_x * pixel_x, pixel_x, 0.0, 2 * limit_x + 1),
        "shift_y": Parameter("crop", 0, -limit_y * pixel_y, pixel_y, 0.0, 2 * limit_y + 1),
        "mirror": Parameter("flip", 0, -1.0, 2.0, 1.0, 2),
        "brightness": Parameter("color", 0, -0.5, 1.0, 0.0),
        "saturation": Parameter("color", 1, 0.0, 2.0, 1.0),
        "contrast": Parameter("color", 2, 0.5, 1.0, 1.0),
        "hole_y": _hole(0, h),
        "hole_x": _hole(1, w),
    }


def _hole(number: int, size: int) -> Parameter:
    """Return the middle of the pixels that cutout zeroes along an axis; the identity is far outside the image."""
    side = hole_side(size)
    return Parameter("cutout", number, (side - 1) / 2 - side // 2, 1.0, -4.0 * size, size + 1 - side % 2)


def hole_side(size: int) -> int:
    """Return the side of the square that cutout zeroes, in pixels, before it is clipped at the borders."""
    return int(size * 0.5 + 0.5)


class Table(NamedTuple):
    """Constants on the device for images of one size, with m parameters.

    Attributes:
        names: names of the parameters. Those that are rounded come last.
        rows: offsets and factors of the parameters for each drawn op, `(ops, 2 m)`.
        numbers: index of each parameter's random number, `(m,)`.
        levels: factor of each random number, `(m,)`.
        last: largest value of each rounded number, `(rounded,)`.
        x: normalised positions of the columns, `(w,)`.
        y: normalised positions of the rows, `(h, 1)`.
        pixel_x: index of each column, `(w,)`.
        pixel_y: index of each row, `(h, 1)`.
    """

    names: tuple[str, ...]
    rows: Tensor
    numbers: Tensor
    levels: Tensor
    last: Tensor
    x: Tensor
    y: Tensor
    pixel_x: Tensor
    pixel_y: Tensor

    def parameters(self, op: Tensor, u: Tensor) -> dict[str, Tensor]:
        """Return each parameter, `(g, b, 1, 1)`, for ops `(g,)` and random numbers `(g, b, ...)`."""
        offset, factor = self.rows.index_select(0, op)[:, None].chunk(2, -1)  # (g, 1, m)
        q = u.index_select(-1, self.numbers) * self.levels
        q[..., len(self.names) - len(self.last) :].floor_().clamp_(max=self.last)
        values = torch.addcmul(offset, factor, q).to(self.x.dtype)[..., None, None]
        return dict(zip(self.names, values.unbind(2), strict=True))


class MaskedAugment:
    """Apply the ops `always`, and to each group of images also one of `choices`. See `Augment` for the arguments."""

    def __init__(self, always: tuple[str, ...], choices: tuple[str, ...], align_corners: bool):
        """Initialise without constants; they are computed for each size of images."""
        self.always, self.choices, self.align_corners = always, choices, align_corners
        self._tables: dict[tuple[int, int, torch.device, torch.dtype, torch.dtype], Table] = {}

    def apply(self, x: Tensor, op: Tensor, u: Tensor) -> Tensor:
        """Augment groups of images `(g, b, c, h, w)`; differentiable in `x`.

        Args:
            x: the images.
            op: index into `choices` for each group, `(g,)`, on the device of `x`.
            u: uniform numbers in [0, 1): three for the drawn op, then three for each op of `always`. The shape is
                `(g, 1, n)`, or `(g, b, n)` if each image has its own numbers.
        """
        h, w = x.shape[3:]
        table = self._table(h, w, x, u.dtype)
        p = table.parameters(op, u)
        if "brightness" in p:
            x = _color(x, p)
        if not p.keys().isdisjoint(("scale_x", "angle", "shift_x", "mirror")):
            grid = _positions(p, table).flatten(0, 1)  # (g, h, w, 2), or (g * b, h, w, 2)
            images = x.reshape(
                len(grid), -1, h, w
            )  # images with the same positions are channels of one image
            x = sample_bilinear(images, grid, align_corners=self.align_corners).reshape(x.shape)
        if "hole_y" in p:
            rows = (table.pixel_y - p["hole_y"]).abs() < hole_side(h) / 2
            cols = (table.pixel_x - p["hole_x"]).abs() < hole_side(w) / 2
            x = x.masked_fill((rows & cols)[:, :, None], 0.0)
        return x

    def _table(self, h: int, w: int, x: Tensor, dtype: torch.dtype) -> Table:
        """Return the constants for images `x` and random numbers of type `dtype`, computed at the first call."""
        key = (h, w, x.device, x.dtype, dtype)
        if key not in self._tables:
            with torch.inference_mode(False):  # so that the table can be used in training, too
                self._tables[key] = self._make_table(h, w, x, dtype)
        return self._tables[key]

    def _make_table(self, h: int, w: int, x: Tensor, dtype: torch.dtype) -> Table:
        listed = (*self.choices, *self.always)
        parameters = op_parameters(h, w, self.align_corners)
        names = [name for name, p in parameters.items() if p.op in listed]
        names.sort(key=lambda name: parameters[name].levels > 0)
        used = [parameters[name] for name in names]
        rows = []
        for op in self.choices or ("",):
            applied = [p.op == op or p.op in self.always for p in used]
            offsets = [p.offset if on else p.identity for p, on in zip(used, applied, strict=True)]
            rows.append([*offsets, *(p.factor if on else 0.0 for p, on in zip(used, applied, strict=True))])
        first = {op: 3 * (1 + i) for i, op in enumerate(self.always)}  # of the numbers of each op
        constants = {
            "rows": torch.tensor(rows, dtype=dtype),
            "numbers": torch.tensor([first.get(p.op, 0) + p.number for p in used]),
            "levels": torch.tensor([float(p.levels or 1) for p in used], dtype=dtype),
            "last": torch.tensor([p.levels - 1.0 for p in used if p.levels], dtype=dtype),
            "x": _centres(w, self.align_corners).to(x.dtype),
            "y": _centres(h, self.align_corners)[:, None].to(x.dtype),
            "pixel_x": torch.arange(w, dtype=x.dtype),
            "pixel_y": torch.arange(h, dtype=x.dtype)[:, None],
        }
        return Table(tuple(names), **{name: to_device(t, x.device) for name, t in constants.items()})


def _centres(size: int, align_corners: bool) -> Tensor:
    """Return the normalised positions of the pixels' centres, `(size,)`, as in `F.affine_grid`."""
    line = torch.arange(size, dtype=torch.float64)
    return (2 * line - (size - 1)) / max(1, size - 1 if align_corners else size)


def _positions(p: dict[str, Tensor], table: Table) -> Tensor:
    """Return the sampling positions (x, y), `(g, b, h, w, 2)`.

    They are computed without a matrix product, which autocast and TF32 would round to 8 or 11 bits.
    """
    x, y = table.x, table.y
    if "scale_x" in p:
        x, y = p["scale_x"] * x, p["scale_y"] * y
    if "angle" in p:
        cos, sin = p["angle"].cos(), p["angle"].sin()
        x, y = torch.addcmul(cos * x, sin, y, value=-1), torch.addcmul(sin * x, cos, y)
    if "shift_x" in p:
        x, y = x + p["shift_x"], y + p["shift_y"]
    if "mirror" in p:
        x = p["mirror"] * x
    return torch.stack(torch.broadcast_tensors(x, y), -1)


def _color(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    """Change brightness, saturation and contrast, in this order. A weight of 1 leaves an image unchanged in `lerp`."""
    x = x + p["brightness"][..., None]
    if x.shape[2] > 1:  # saturation of one channel is the identity
        x = torch.lerp(x.mean(2, keepdim=True), x, p["saturation"][..., None])
    return torch.lerp(x.mean((2, 3, 4), keepdim=True), x, p["contrast"][..., None])
