"""The layers that several architectures choose by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

T = TypeVar("T")

NORMS = ("none", "batchnorm", "layernorm", "instancenorm", "groupnorm")
GROUPS = 4  # of groupnorm


def choose(knob: str, name: str, among: Mapping[str, T]) -> T:
    """Return `among[name]`.

    Raises:
        ValueError: there is no such choice.
    """
    if name not in among:
        raise ValueError(f"model.{knob}={name} is unknown. Take one of: {', '.join(among)}")
    return among[name]


class MapNorm(nn.LayerNorm):
    """LayerNorm with its weight and bias applied outside the kernel; the same numbers.

    Under `vmap` torch 2.14 differentiates the kernel's weight gradient wrongly, without a word, and gradient
    matching takes just that derivative; a norm of maps has a weight of three dimensions, which counts there.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return maps of the shape of `input`."""
        return F.layer_norm(input, self.normalized_shape, eps=self.eps) * self.weight + self.bias


def make_norm(name: str, channels: int, size: tuple[int, int]) -> nn.Module:
    """Return the normalisation of maps `(n, channels, *size)`, one of `NORMS`, with PyTorch's defaults.

    `instancenorm` is GroupNorm with a group a channel, affine, without running statistics, as in
    VICO-UoE/DatasetCondensation@2326d16 networks.py; `layernorm` is over channels and pixels at once.

    Raises:
        ValueError: an unknown name, or groupnorm of a number of channels that 4 does not divide.
    """
    if name == "groupnorm" and channels % GROUPS:
        raise ValueError(
            f"groupnorm makes {GROUPS} groups, got {channels} channels. Take model.norm=instancenorm"
        )
    makers: dict[str, Callable[[], nn.Module]] = {
        "none": nn.Identity,
        "batchnorm": lambda: nn.BatchNorm2d(channels),
        "layernorm": lambda: MapNorm([channels, *size]),
        "instancenorm": lambda: nn.GroupNorm(channels, channels),
        "groupnorm": lambda: nn.GroupNorm(GROUPS, channels),
    }
    return choose("norm", name, makers)()
