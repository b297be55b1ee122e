"""Copies from the CPU to a device that do not wait for the device, and copies of several tensors that wait once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

_ALIGNMENT = 256  # bytes, as in CUDA's allocator; kernels read aligned tensors faster


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to `device` without waiting for the device, through page-locked memory."""
    return page_locked(x, device).to(device, non_blocking=True)


def page_locked(x: Tensor, device: torch.device) -> Tensor:
    """Return a CPU tensor in memory from which it can be copied to `device` without waiting."""
    # without a device, memory cannot be page-locked
    return x if device.type in ("cpu", "meta") else x.pin_memory()


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors to new, contiguous CPU tensors, and wait for their device once.

    The tensors are on the CPU and at most one other device. Its copies are executed in this order, so all have finished
    when the last one has.
    """
    copies = [page_locked(torch.empty(t.shape, dtype=t.dtype), t.device) for t in tensors]
    last = max((i for i, t in enumerate(tensors) if t.numel() and t.device.type != "cpu"), default=None)
    for i, (copy, t) in enumerate(zip(copies, tensors, strict=True)):
        copy.copy_(t.detach(), non_blocking=i != last)
    return copies


@lru_cache(maxsize=256)
def constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a tensor of constants `(n,)`, which is copied to the device once. Callers must not change it."""
    with torch.inference_mode(False):  # so that a tensor made in an evaluation can be used in training
        return to_device(torch.tensor(values, dtype=dtype), device)


def move_module(net: nn.Module, device: torch.device) -> nn.Module:
    """Move a module from the CPU to `device` in place, without waiting, and return it.

    All parameters and buffers are copied to the device by one transfer, and from there to their own memory by one
    kernel. Views of the transferred bytes would share one version counter of autograd, so a running statistic that
    changes in place would count as a change of all parameters.
    """
    tensors = [*net.parameters(), *net.buffers()]
    if device.type == "cpu" or not tensors:
        return net
    packed, offsets = pack([t.detach() for t in tensors])
    moved = [torch.empty_like(t.detach(), device=device) for t in tensors]
    torch._foreach_copy_(moved, unpack(to_device(packed, device), offsets, tensors))
    of = {id(old): new for old, new in zip(tensors, moved, strict=True)}
    net._apply(lambda t: of[id(t)])
    return net


def pack(tensors: list[Tensor]) -> tuple[Tensor, list[int]]:
    """Return the bytes of tensors of any types, uint8 `(bytes,)`, and the aligned offset of each tensor in them."""
    offsets, end = [], 0
    for t in tensors:
        offsets.append(end)
        end += -(-t.numel() * t.element_size() // _ALIGNMENT) * _ALIGNMENT
    packed = torch.empty(end, dtype=torch.uint8)
    for place, t in zip(unpack(packed, offsets, tensors), tensors, strict=True):
        place.copy_(t)
    return packed, offsets


def unpack(packed: Tensor, offsets: list[int], like: list[Tensor]) -> list[Tensor]:
    """Return views of packed bytes with the shapes and types of the tensors `like`."""
    parts = [packed[o : o + t.numel() * t.element_size()] for o, t in zip(offsets, like, strict=True)]
    return [part.view(t.dtype).view(t.shape) for part, t in zip(parts, like, strict=True)]
