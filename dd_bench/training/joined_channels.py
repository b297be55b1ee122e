"""Layers of several networks under `torch.vmap`, computed as one layer on the channels of all networks.

A convolution of r networks is a grouped convolution, whose output is `(b, r * c, h, w)`. Normalisation and pooling work
on channels or groups of adjacent channels, so one kernel can read this output in place. `vmap` alone would first
copy the maps, because it moves the networks to the batch dimension, and would compute weights and biases in separate
kernels, also in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_POOLS = (nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)

Compute = Callable[..., Tensor]
"""Maps `x (b, r * c, h, w)` and parameters `(r * c, ...)` to maps `(b, r * c', h', w')`."""


def join_channels(module: nn.Module) -> None:
    """Change the forward pass of the layers of a module that is called under `vmap`. Other layers do not change."""
    for layer in module.modules():
        compute = _joined(layer)
        if compute is not None:
            layer.forward = partial(_forward, layer, compute)  # type: ignore[method-assign]


def is_joined(layer: nn.Module) -> bool:
    """Return whether `join_channels` changes a layer. Subclasses, whose forward pass can differ, are excluded."""
    return _joined(layer) is not None


def _joined(layer: nn.Module) -> Compute | None:
    """Return the function that computes a layer for all networks, or None if there is no such function."""
    if type(layer) is nn.Conv2d and layer.padding_mode == "zeros":
        return partial(_convolution, layer)
    if type(layer) is nn.GroupNorm and layer.affine:
        return partial(_group_norm, layer)
    if (
        type(layer) is nn.BatchNorm2d
        and layer.affine
        and layer.track_running_stats
        and layer.momentum is not None
    ):
        return partial(_batch_norm, layer)
    if type(layer) in _POOLS and not getattr(layer, "return_indices", False):
        return partial(type(layer).forward, layer)
    return None


def _forward(layer: nn.Module, compute: Compute, x: Tensor) -> Tensor:
    if isinstance(layer, nn.BatchNorm2d) and layer.training:
        assert layer.num_batches_tracked is not None
        layer.num_batches_tracked.add_(1)
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = [getattr(layer, name, None) for name in names]
    shared = isinstance(layer, nn.Conv2d) and layer.groups == 1
    out: Tensor = _OnChannels.apply(compute, shared, x, *(t for t in tensors if t is not None))
    return out


def _convolution(layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    groups = layer.groups * x.shape[1] // layer.in_channels
    return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, groups)


def _group_norm(layer: nn.GroupNorm, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.group_norm(x, layer.num_groups * x.shape[1] // layer.num_channels, weight, bias, layer.eps)


def _batch_norm(
    layer: nn.BatchNorm2d, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> Tensor:
    assert layer.momentum is not None
    return F.batch_norm(x, mean, var, weight, bias, layer.training, layer.momentum, layer.eps)


class _OnChannels(torch.autograd.Function):
    """`compute(x, *parameters)` for one network, and once for all networks under `vmap`.

    Autograd differentiates the operations of `compute`, so there is no backward pass here.
    """

    generate_vmap_rule = False

    @staticmethod
    def forward(compute: Compute, shared: bool, x: Tensor, *parameters: Tensor) -> Tensor:
        """Compute a layer without parameters on images that all networks share."""
        return compute(x, *parameters)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """See `torch.autograd.Function`."""

    @staticmethod
    def vmap(  # type: ignore[override]
        info: Any, in_dims: Any, compute: Compute, shared: bool, x: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, int]:
        """Compute the layer of all networks. `in_dims` are their dimensions in the inputs; in the output it is 1.

        With `shared`, images that all networks share are read by the layer without a copy for each network.
        """
        r, (_, _, dim, *dims) = info.batch_size, in_dims
        if dim is not None:
            x = x.movedim(dim, 1).flatten(1, 2)
        elif not shared:
            x = x.unsqueeze(1).expand(-1, r, -1, -1, -1).flatten(1, 2)
        joined = [p.movedim(d, 0).flatten(0, 1) for p, d in zip(parameters, dims, strict=True)]
        return compute(x, *joined).unflatten(1, (r, -1)), 1
