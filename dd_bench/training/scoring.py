"""Accuracy of a network on held-out batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from dd_bench.models.network import largest_activation
from dd_bench.runtime.runtime import Runtime
from dd_bench.training.stacked_networks import StackedNetworks

TEST_BATCH = 1000
"""Maximum of `eval_batch_size`."""
ACTIVATION_BYTES = 64 << 20
"""Maximum size in bytes of the output of a layer for a batch; a forward pass holds two or three outputs."""


class Batched(Protocol):
    """A split of real images."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape `(c, h, w)` of an image."""

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `(inputs, labels)` in batches of `size`."""


def eval_batches(net: nn.Module, split: Batched) -> Iterator[tuple[Tensor, Tensor]]:
    """Return the batches of `split` on which `net` is scored; see `eval_batch_size`."""
    return split.batches(eval_batch_size(net, split.shape))


def eval_batch_size(net: nn.Module, shape: tuple[int, int, int]) -> int:
    """Return a batch size for forward passes without gradient that bounds the memory of the activations of `net`."""
    if getattr(net, "modality", "image") != "image":
        return TEST_BATCH
    per_image = 4 * largest_activation(net, shape)
    return max(1, min(TEST_BATCH, ACTIVATION_BYTES // per_image))


@torch.no_grad()
def accuracy(net: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], runtime: Runtime) -> float:
    """Return the share of correct predictions in [0, 1], in eval mode and without augmentation."""
    training = net.training
    net.eval()
    right, seen = torch.zeros((), dtype=torch.int64, device=runtime.device), 0
    for x, y in batches:
        with torch.autocast(runtime.device.type, torch.bfloat16, enabled=runtime.autocast):
            logits = net(x)
        right += (logits.argmax(1) == y).sum()
        seen += len(y)
    net.train(training)
    return int(right) / seen


@torch.no_grad()
def accuracies(
    networks: StackedNetworks, batches: Iterator[tuple[Tensor, Tensor]], device: torch.device
) -> Tensor:
    """Return the accuracy of each of r networks as in `accuracy`, float64 `(r,)`, without waiting for the device."""
    training = networks.module.training
    networks.module.eval()
    right, seen = torch.zeros(networks.r, dtype=torch.int64, device=device), 0
    for x, y in batches:
        right += (networks(x).argmax(2) == y).sum(1)
        seen += len(y)
    networks.module.train(training)
    return right.double() / seen


@torch.no_grad()
def correct_by_class(
    net: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], k: int, runtime: Runtime
) -> tuple[Tensor, Tensor]:
    """Return the numbers of correctly classified images and of all images per class, each `(k,)` on the CPU."""
    training = net.training
    net.eval()
    right, seen = (torch.zeros(k, dtype=torch.int64, device=runtime.device) for _ in range(2))
    for x, y in batches:
        with torch.autocast(runtime.device.type, torch.bfloat16, enabled=runtime.autocast):
            logits = net(x)
        right.index_add_(0, y, (logits.argmax(1) == y).long())  # bincount would wait for the device
        seen.index_add_(0, y, torch.ones_like(y))
    net.train(training)
    return right.cpu(), seen.cpu()
