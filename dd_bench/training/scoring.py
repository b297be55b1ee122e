"""Accuracy of a network on held-out batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dd_bench.runtime.runtime import Runtime


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
        right += torch.bincount(y[logits.argmax(1) == y], minlength=k)
        seen += torch.bincount(y, minlength=k)
    net.train(training)
    return right.cpu(), seen.cpu()
