"""Optimisers, learning-rate schedules and BatchNorm momentum of a recipe."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from dd_bench.training.recipe import Recipe


def make_optimizer(
    parameters: Any, recipe: Recipe, device: torch.device, stacked: int = 0
) -> torch.optim.Optimizer:
    """Build the recipe's fused optimiser; with `stacked=1`, the first dimension of a parameter indexes networks."""
    parameters = list(parameters)
    if recipe.decay_filter == "weights_only":
        parameters = [
            {"params": [p for p in parameters if p.ndim - stacked >= 2]},
            {"params": [p for p in parameters if p.ndim - stacked < 2], "weight_decay": 0.0},
        ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def set_batchnorm_momentum(net: nn.Module, recipe: Recipe) -> None:
    """Set the momentum of the BatchNorm layers of `net`, if the recipe has one."""
    if recipe.batchnorm_momentum is None:
        return
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = recipe.batchnorm_momentum


def set_lr(optimizer: torch.optim.Optimizer, recipe: Recipe, epoch: float) -> None:
    """Set the learning rate after `epoch` epochs; with `recipe.reset_optimizer`, reset the optimiser at milestones."""
    if epoch in recipe.milestones and recipe.reset_optimizer:
        optimizer.state.clear()
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr * _factor(recipe, epoch)


def _factor(recipe: Recipe, epoch: float) -> float:
    """Return the factor by which the learning rate is multiplied after `epoch` epochs."""
    if epoch < recipe.warmup:
        return 0.01 + 0.99 * epoch / recipe.warmup
    if recipe.schedule == "milestones":
        return recipe.gamma ** sum(epoch >= m for m in recipe.milestones)
    length = (recipe.epochs - recipe.warmup) * (2 if recipe.schedule == "half_cosine" else 1)
    return 0.5 * (1 + math.cos(math.pi * (epoch - recipe.warmup) / length))
