"""Layers that several architectures select by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

T = TypeVar("T")

NORMS = ("none", "batchnorm", "layernorm", "instancenorm", "groupnorm")
GROUPS = 4  # of groupnorm


def choose(knob: str, name: str, choices: Mapping[str, T]) -> T:
    """Return `choices[name]`.

    Raises:
        ValueError: `choices` does not contain `name`.
    """
    if name not in choices:
        raise ValueError(f"model.{knob} must be one of {', '.join(choices)}, got {name}")
    return choices[name]


class MapNorm(nn.LayerNorm):
    """LayerNorm over maps `(c, h, w)`. PyTorch's kernel only normalises; the weight and the bias are applied after it.

    The output is the same as that of `nn.LayerNorm`. Gradient matching needs the derivative of the weight's gradient.
    Under `vmap`, the kernel of torch 2.14 silently computes a wrong derivative if the weight is three-dimensional, as
    it is here.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return maps of the shape of `input`."""
        return F.layer_norm(input, self.normalized_shape, eps=self.eps) * self.weight + self.bias


def make_norm(name: str, channels: int, size: tuple[int, int]) -> nn.Module:
    """Return a normalisation layer for maps `(n, channels, *size)`, one of `NORMS`, with PyTorch's defaults.

    `instancenorm` is GroupNorm with one group per channel, affine and without running statistics, as in
    VICO-UoE/DatasetCondensation@2326d16 networks.py. `layernorm` normalises over channels and pixels together.

    Raises:
        ValueError: the name is unknown, or `channels` is not a multiple of 4 for groupnorm.
    """
    if name == "groupnorm" and channels % GROUPS:
        raise ValueError(
            f"groupnorm requires a multiple of {GROUPS} channels, got {channels}. Use model.norm=instancenorm"
        )
    norms: dict[str, Callable[[], nn.Module]] = {
        "none": nn.Identity,
        "batchnorm": lambda: nn.BatchNorm2d(channels),
        "layernorm": lambda: MapNorm([channels, *size]),
        "instancenorm": lambda: nn.GroupNorm(channels, channels),
        "groupnorm": lambda: nn.GroupNorm(GROUPS, channels),
    }
    return choose("norm", name, norms)()
