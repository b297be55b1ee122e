"""Network inputs: laid out as one tensor, or made batch by batch where a device should not hold them all.

A distilled ImageNet set of 50 images a class is 50,000 images of 224 pixels: 30 GB as floats, 7.5 GB as stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

MATERIALISE_LIMIT = 2 << 30
"""Bytes of network inputs up to which they are laid out: making them anew each epoch costs time."""


class Inputs(Protocol):
    """Images `(n, c, h, w)` as a network takes them; a tensor is such."""

    def __len__(self) -> int:
        """Returns n."""

    def __getitem__(self, index: Any, /) -> Tensor:
        """Returns the images of the indices `(b,)`: `(b, c, h, w)` float32."""

    @property
    def device(self) -> torch.device:
        """Where they are."""

    def clone(self) -> Self:
        """Returns them without whatever memory they are a part of."""


@dataclass(frozen=True)
class LazyInputs:
    """Inputs that are made when they are asked for.

    Attributes:
        n: how many there are.
        device: where they are made.
        make: maps indices `(b,)` on the device to images `(b, c, h, w)`.
    """

    n: int
    device: torch.device
    make: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        """See `Inputs`."""
        return self.n

    def __getitem__(self, index: Tensor, /) -> Tensor:
        """See `Inputs`."""
        return self.make(index)

    def clone(self) -> LazyInputs:
        """See `Inputs`; what they are made from is whole already."""
        return self


def index_batches(inputs: Inputs, size: int) -> list[Tensor]:
    """Returns the indices of consecutive parts of up to `size` images."""
    return list(torch.arange(len(inputs), device=inputs.device).split(size))
