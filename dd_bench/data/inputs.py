"""Network inputs: one tensor, or batches computed on demand if the whole tensor would use too much device memory.

The 50,000 images of a distilled ImageNet set with 50 images per class, of 224x224 pixels, take 30 GB as float32 and
7.5 GB as uint8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

MATERIALISE_LIMIT = 2 << 30
"""Inputs of up to this many bytes are computed once and stored, because computing them again every epoch is slower."""


class Inputs(Protocol):
    """Images `(n, c, h, w)` as network inputs. A tensor satisfies this protocol."""

    def __len__(self) -> int:
        """Return n."""

    def __getitem__(self, index: Any, /) -> Tensor:
        """Return the images at the indices `(b,)`, float32 `(b, c, h, w)`."""

    @property
    def device(self) -> torch.device:
        """The device of the images."""

    def clone(self) -> Self:
        """Return a copy that is not a view of a larger tensor."""


@dataclass(frozen=True)
class LazyInputs:
    """Inputs that are computed when they are indexed.

    Attributes:
        n: number of images.
        device: where the images are computed.
        make: function from indices `(b,)` on the device to images `(b, c, h, w)`.
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
        """See `Inputs`. Nothing is copied, because `make` does not read from a view."""
        return self


def index_batches(inputs: Inputs, size: int) -> list[Tensor]:
    """Return the indices of consecutive batches of up to `size` images."""
    return list(torch.arange(len(inputs), device=inputs.device).split(size))
