"""Several networks of one architecture as one batched network (`torch.func.vmap`), with few parameter tensors."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dd_bench.models.network import Network
from dd_bench.training.joined_channels import is_joined, join_channels

_BFLOAT16 = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Layers that compute in bfloat16. Subclasses may use their weights in other ways, so autocast decides for them."""

_FLOAT32 = (nn.GroupNorm, nn.LayerNorm, nn.modules.batchnorm._NormBase)
"""Layers that compute in float32, as with autocast on CUDA, except BatchNorm2d (see `_set_input_types`)."""


class StackedNetworks:
    """r networks of one architecture as a function `x (r, b, c, h, w) -> logits (r, b, k)`.

    The parameters are stored in one to four flat vectors, so the optimiser launches few kernels. Convolutions,
    normalisation and pooling process the channels of all networks at once, see `joined_channels`. With `autocast`, the
    parameters of convolutions and linear layers are converted to bfloat16 by one or two kernels, instead of one per
    tensor, and the types of the inputs of each layer are set explicitly. `vmap` splits some operations before autocast
    sees them, so that autocast alone would leave convolutions on a CPU in float32. Gradients are float32.

    Attributes:
        r: number of networks.
        vectors: the float32 parameters that are trained.
        buffers: running statistics, each `(r, ...)`.
        module: a network that defines the forward pass and its mode (train or eval).
    """

    def __init__(self, nets: Sequence[Network], autocast: bool, by_dimension: bool = False):
        """Copy the parameters and buffers of `nets`, which have the architecture of the first.

        With `by_dimension`, weights (parameters with at least two dimensions) have vectors of their own.
        """
        tensors = {id(t): t for t in (*nets[0].parameters(), *nets[0].buffers())}
        self.r, self._autocast = len(nets), autocast
        self.module = deepcopy(nets[0], tensors)  # its tensors are not copied, because they are not used
        self._device_type = next(nets[0].parameters()).device.type
        converted = {
            id(p)
            for m in self.module.modules()
            if autocast and type(m) in _BFLOAT16
            for p in m.parameters(recurse=False)
        }
        self._groups: dict[tuple[bool, bool], list[str]] = {}  # (is a weight, is converted) -> names
        for name, p in self.module.named_parameters():
            group = (by_dimension and p.ndim >= 2, id(p) in converted)
            self._groups.setdefault(group, []).append(name)
        self._shapes = {name: (self.r, *p.shape) for name, p in self.module.named_parameters()}
        stored = [dict(net.named_parameters()) for net in nets]
        # parameter after parameter, so that each is contiguous
        self.vectors = [
            torch.cat([torch.stack([p[name].detach() for p in stored]).flatten() for name in names])
            for names in self._groups.values()
        ]
        for vector in self.vectors:
            vector.requires_grad_()
        buffers = [dict(net.named_buffers()) for net in nets]
        self.buffers = {name: torch.stack([b[name] for b in buffers]) for name in buffers[0]}
        join_channels(self.module)
        if autocast:
            _set_input_types(self.module)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits `(r, b, k)` of inputs `(r, b, c, h, w)`, or of inputs `(b, c, h, w)` for all networks."""
        parameters: dict[str, Tensor] = {}
        for ((_, converted), names), vector in zip(self._groups.items(), self.vectors, strict=True):
            # one kernel converts all of them, and one joins the gradients of the parts
            parameters |= self._parts(names, vector.bfloat16() if converted else vector)
        batched = torch.vmap(self._forward, (0, 0, 0 if x.ndim == 5 else None), randomness="different")
        with torch.autocast(self._device_type, torch.bfloat16, enabled=self._autocast):
            logits: Tensor = batched(parameters, self.buffers, x)
        return logits

    def is_weight(self, vector: Tensor) -> bool:
        """Return whether a vector contains only weights, see `by_dimension`."""
        index = next(i for i, v in enumerate(self.vectors) if v is vector)
        return list(self._groups)[index][0]

    def state(self) -> dict[str, Tensor]:
        """Return the parameters and buffers by name, each `(r, ...)`; they share memory with the networks."""
        state = dict(self.buffers)
        for names, vector in zip(self._groups.values(), self.vectors, strict=True):
            state |= self._parts(names, vector.detach())
        return state

    def _parts(self, names: list[str], vector: Tensor) -> dict[str, Tensor]:
        """Return views of a vector in the shapes of its parameters, by name."""
        shapes = [self._shapes[name] for name in names]
        parts = vector.split([torch.Size(shape).numel() for shape in shapes])
        return {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}

    def _forward(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.module, (parameters, buffers), (x,))
        return logits


@torch.no_grad()
def unstack(state: dict[str, Tensor], nets: Sequence[nn.Module]) -> None:
    """Copy the parameters and buffers `state`, each `(r, ...)`, to r networks."""
    for i, net in enumerate(nets):
        for name, value in (*net.named_parameters(), *net.named_buffers()):
            value.copy_(state[name][i])


def _set_input_types(module: nn.Module) -> None:
    """Convert the inputs of layers to the type in which they compute.

    As with autocast, a joined BatchNorm reads bfloat16, and its parameters and statistics are float32. `vmap` does not
    support this on a CPU.
    """
    for layer in module.modules():
        if type(layer) in _BFLOAT16:
            layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].bfloat16(), *inputs[1:]))
        elif isinstance(layer, _FLOAT32) and not (isinstance(layer, nn.BatchNorm2d) and is_joined(layer)):
            layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(), *inputs[1:]))
