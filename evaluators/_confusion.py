"""Confusion matrices of networks on a split of real images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dd_bench.api import Runtime, Split, eval_batches


@torch.no_grad()
def confusion(net: nn.Module, split: Split, runtime: Runtime) -> Tensor:
    """Return the number of images by attribute, class and prediction, int64 `(a, k, k)` on the CPU.

    Without attributes, a = 1.
    """
    k, training = split.num_classes, net.training
    net.eval()
    predictions = []
    for x, _ in eval_batches(net, split):
        with torch.autocast(runtime.device.type, torch.bfloat16, enabled=runtime.autocast):
            predictions.append(net(x).argmax(1))
    net.train(training)
    attributes = torch.zeros_like(split.labels) if split.attributes is None else split.attributes
    cell = ((attributes * k + split.labels) * k + torch.cat(predictions)).cpu()
    return torch.bincount(cell, minlength=(int(attributes.max()) + 1) * k * k).view(-1, k, k)
