"""How the logits of one view are stored: all of them or the largest ones, as float16 numbers or as codes of a few bits.

A view takes these bytes, for k classes, m = `top` stored logits (k if all are stored) and b = `label_bits`:

- logits: 2 m as float16 numbers, or ceil(m b / 8) + 4 as codes with the smallest and the largest logit.
- classes of the stored logits, if m < k: 2 m (4 m for 2^15 or more classes), or ceil(m ceil(log2 k) / 8) with codes.
- the value of the other logits, if m < k and `rest` is `share`: 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dd_bench.runtime.outer_loop import Diverged
from dd_bench.runtime.packed_bits import bits_for, pack_bits, packed_size, unpack_bits

Array = np.ndarray[Any, Any]
NO_PROBABILITY = torch.finfo(torch.float16).min
"""Logit of a class without probability. It is finite, because the KL divergence of an infinite logit is nan."""


@dataclass(frozen=True)
class LabelCodec:
    """Converts logits to the arrays that are stored, and back.

    Attributes:
        k: number of classes.
        top: number of logits stored per view, the largest ones; None for all.
        rest: value of the other logits, see `LabelRecipe`.
        bits: bits of a stored logit; None for float16.
        temperature: temperature at which `rest: share` preserves the total probability of the other classes. None: it
            is the mean of their logits.
    """

    k: int
    top: int | None = None
    rest: Literal["share", "minimum", "zero"] = "share"
    bits: int | None = None
    temperature: float | None = None

    @property
    def stored(self) -> int:
        """Number of stored logits m."""
        return self.k if self.top is None else min(self.top, self.k)

    @property
    def is_cut(self) -> bool:
        """Whether not all logits are stored."""
        return self.stored < self.k

    def arrays(self, *shape: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the safetensors dtype and the shape of each array, for views in an array of this shape."""
        m, bits = self.stored, self.bits
        if bits is None:
            found = {("values" if self.is_cut else "logits"): ("F16", (*shape, m))}
        else:
            found = {"codes": ("U8", (*shape, packed_size(m, bits))), "range": ("F16", (*shape, 2))}
        if self.is_cut and bits is not None:
            found["indices"] = ("U8", (*shape, packed_size(m, bits_for(self.k))))
        elif self.is_cut:
            found["indices"] = ("I16" if self.k < 2**15 else "I32", (*shape, m))
        if self.is_cut and self.rest == "share":
            found["rest"] = ("F16", shape)
        return found

    @property
    def view_bytes(self) -> int:
        """Bytes of the label of one view."""
        sizes = {"F16": 2, "U8": 1, "I16": 2, "I32": 4}
        return sum(sizes[dtype] * math.prod(shape) for dtype, shape in self.arrays().values())

    def encode(self, logits: Tensor) -> dict[str, Array]:
        """Return the stored arrays of logits `(n, k)`, on the CPU.

        Raises:
            Diverged: a logit is not finite as float16.
        """
        logits = logits.cpu()
        if not bool(torch.isfinite(logits.half()).all()):
            raise Diverged(
                f"the teachers' logits must be finite in float16, got absolute values up to "
                f"{float(logits.abs().max()):g}. Use other teachers, or train them with a smaller learning rate"
            )
        arrays: dict[str, Array] = {}
        values, indices = logits.topk(self.stored, 1) if self.is_cut else (logits, None)
        if self.bits is None:
            arrays["values" if self.is_cut else "logits"] = values.half().numpy()
        else:
            codes, arrays["range"] = quantise(values.double().numpy(), self.bits)
            arrays["codes"] = pack_bits(codes, self.bits)
        if indices is not None:
            packed = self.bits is not None
            arrays["indices"] = (
                pack_bits(indices.numpy(), bits_for(self.k)) if packed else indices.int().numpy()
            )
            if self.rest == "share":
                arrays["rest"] = self._shared(logits, values, indices).half().numpy()
        return arrays

    def _shared(self, logits: Tensor, values: Tensor, indices: Tensor) -> Tensor:
        """Return the value that replaces the other logits of each view, `(n,)`."""
        left, t = self.k - self.stored, self.temperature
        if t is None:
            return (logits.sum(1) - values.sum(1)) / left
        return t * ((logits.scatter(1, indices, -math.inf) / t).logsumexp(1) - math.log(left))

    def decode(self, arrays: Mapping[str, Array]) -> Tensor:
        """Return the logits `(n, k)` of stored arrays, float16."""
        if self.bits is None:
            values = torch.from_numpy(arrays["values" if self.is_cut else "logits"])
        else:
            codes = unpack_bits(arrays["codes"], self.stored, self.bits)
            values = torch.from_numpy(dequantise(codes, arrays["range"], self.bits)).half()
        if not self.is_cut:
            return values
        indices = arrays["indices"]
        if self.bits is not None:
            indices = unpack_bits(indices, self.stored, bits_for(self.k))
        if self.rest == "share":
            rest = torch.from_numpy(arrays["rest"])
        elif self.rest == "minimum":
            rest = values.amin(1)
        else:
            rest = torch.full((len(values),), NO_PROBABILITY, dtype=torch.float16)
        full = rest[:, None].expand(-1, self.k).contiguous()
        return full.scatter(1, torch.from_numpy(indices).long(), values)


def quantise(values: Array, bits: int) -> tuple[Array, Array]:
    """Quantise each row of values `(n, m)` to 2^bits values at equal distances.

    Returns:
        Codes `(n, m)`, and the smallest and the largest value of each row `(n, 2)`. These two are float16 and are
        rounded down and up, so that the error of a value is at most half of the distance of two codes.
    """
    low, high = values.min(1), values.max(1)
    ends = np.stack([low, high], 1).astype(np.float16)
    ends[:, 0] = np.where(ends[:, 0] > low, np.nextafter(ends[:, 0], np.float16(-np.inf)), ends[:, 0])
    ends[:, 1] = np.where(ends[:, 1] < high, np.nextafter(ends[:, 1], np.float16(np.inf)), ends[:, 1])
    start, step = _grid(ends, bits)
    codes = np.rint((values - start) / np.where(step > 0, step, 1)).astype(np.int64)
    return codes, ends


def dequantise(codes: Array, ends: Array, bits: int) -> Array:
    """Return the values of codes `(n, m)`, given the smallest and the largest value of each row `(n, 2)`."""
    start, step = _grid(ends, bits)
    return np.asarray(start + codes * step)


def _grid(ends: Array, bits: int) -> tuple[Array, Array]:
    """Return the value of code 0 and the distance of two codes for each row, both `(n, 1)`, in float64."""
    wide = ends.astype(np.float64)
    return wide[:, :1], (wide[:, 1:] - wide[:, :1]) / (2**bits - 1)
