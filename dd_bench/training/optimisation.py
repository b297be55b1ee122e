"""Optimisers, learning-rate schedules and BatchNorm momentum of a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dd_bench.training.recipe import Recipe


def make_optimizer(
    parameters: Any,
    recipe: Recipe,
    device: torch.device,
    is_weight: Callable[[Tensor], bool] = lambda p: p.ndim >= 2,
) -> torch.optim.Optimizer:
    """Build the recipe's fused optimiser; with `weights_only`, only parameters that are weights have weight decay."""
    parameters = list(parameters)
    if recipe.decay_filter == "weights_only":
        parameters = [
            {"params": [p for p in parameters if is_weight(p)]},
            {"params": [p for p in parameters if not is_weight(p)], "weight_decay": 0.0},
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
    reset_at_milestone(optimizer, recipe, epoch)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(recipe, epoch)


def reset_at_milestone(optimizer: torch.optim.Optimizer, recipe: Recipe, epoch: float) -> None:
    """Zero the state of the optimiser at a milestone, if the recipe has `reset_optimizer`. It keeps its memory.

    A momentum of zero gives the same next step as no momentum.
    """
    if recipe.reset_optimizer and epoch in _milestones(recipe):
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.zero_()


def step_with(optimizer: torch.optim.Optimizer, lr: Tensor) -> None:
    """Take a step with a learning rate that is a 0-d tensor, which a CUDA graph reads again at each step."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        if "capturable" in group and lr.device.type == "cuda":
            # Adam raises an error in a recording without `capturable`, and warns if it is set in other steps
            group["capturable"] = torch.cuda.is_current_stream_capturing()
    optimizer.step()


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """Return the learning rate after `epoch` epochs, which need not be an integer."""
    return recipe.lr * _factor(recipe, epoch)


def _milestones(recipe: Recipe) -> list[float]:
    """Return the milestones in epochs. Those of a recipe with `steps` are steps, whose epochs need not be integers."""
    if recipe.steps is None:
        return list(recipe.milestones)
    return [recipe.epochs * m / recipe.steps for m in recipe.milestones]


def _factor(recipe: Recipe, epoch: float) -> float:
    """Return the factor by which the learning rate is multiplied after `epoch` epochs."""
    if epoch < recipe.warmup:
        return 0.01 + 0.99 * epoch / recipe.warmup
    if recipe.schedule == "milestones":
        return recipe.gamma ** sum(epoch >= m for m in _milestones(recipe))
    length = (recipe.epochs - recipe.warmup) * (2 if recipe.schedule == "half_cosine" else 1)
    return 0.5 * (1 + math.cos(math.pi * (epoch - recipe.warmup) / length))
