"""The one train-from-scratch loop: evaluators train fresh networks with it, methods their teachers and experts.

The data are on the device, a batch is an index, and no step waits for the device. `train` trains one network;
`train_together` trains several as one batched network (`torch.func.vmap`), which is faster on a GPU. Both draw the
same batches and augmentations for a network's seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from dd_bench.models.network import Network
from dd_bench.runtime import distributed
from dd_bench.runtime.checkpoint import State, restore, save
from dd_bench.runtime.runtime import Runtime
from dd_bench.runtime.seeding import Generators, seed_for, seeded, stream
from dd_bench.training.batches import Fetch, LabelledBatches, is_partitioned, recipe_batches
from dd_bench.training.losses import Loss, Target, compiled_loss, network_loss
from dd_bench.training.optimisation import make_optimizer, set_rate
from dd_bench.training.recipe import Recipe


class GradientRule(Protocol):
    """Fill the gradients of a step, where they are not the gradient of the loss."""

    def __call__(
        self, net: nn.Module, loss: Loss, x: Tensor, target: Target, raw: Tensor, epoch: int
    ) -> None:
        """Fill `.grad` of the parameters of `net`; `x` is the augmented batch, `raw` the batch before that."""


def train(
    net: Network,
    fetch: Fetch,
    n: int,
    recipe: Recipe,
    *,
    seed: int,
    runtime: Runtime,
    flip: bool,
    compiled: bool = False,
    on_epoch: Callable[[int], None] | None = None,
    on_step: Callable[[int], None] | None = None,
    gradient_rule: GradientRule | None = None,
    checkpoint: Path | None = None,
    labelled_batches: LabelledBatches | None = None,
) -> Network:
    """Train `net` in place on `n` images and returns it, in train mode.

    Args:
        net: on `runtime.device`.
        fetch: maps indices to inputs and labels.
        n: number of training images.
        recipe: optimiser, schedule, epochs, augmentation.
        seed: of batch order, augmentation, mixing and dropout.
        runtime: device and precision.
        flip: whether a horizontal flip preserves the class.
        compiled: use `torch.compile`, see `repays_compilation`.
        on_epoch: called with the number of epochs done after each of them.
        on_step: called with the number of steps done after each of them.
        gradient_rule: instead of the gradient of the loss.
        checkpoint: file of a checkpoint, written after every epoch and resumed from if it exists, with the same result.
            It is not removed when the training is done.
        labelled_batches: inputs and targets, instead of those of `fetch` and the recipe.

    Several processes started by `torchrun` train it together, see `dd_bench.runtime.distributed`.

    Raises:
        CheckpointError: the checkpoint is damaged, or of another network or optimiser.
        ValueError: this cannot be trained by several processes.
    """
    device, recipe = runtime.device, recipe.lasting(n)
    streams = [stream(device, seed, role) for role in ("order", "augment", "cutmix")]
    custom_batches = labelled_batches is not None
    labelled_batches = labelled_batches or recipe_batches(fetch, n, recipe, streams, seed, flip)
    optimizer = make_optimizer(net.parameters(), recipe, device)
    loss_of = partial(compiled_loss() if compiled else network_loss, autocast=runtime.autocast)
    if compiled:
        net = net.to(memory_format=torch.channels_last)
    net.train()
    model = _distributed(net, gradient_rule, custom_batches, device) if distributed.world_size() > 1 else net
    with seeded(device, seed_for(seed, "dropout")):
        state: State = {"net": net, "optimizer": optimizer, "streams": Generators(streams, device)}
        done, before = restore(checkpoint, state) if checkpoint is not None else (0, 0.0)
        began = time.monotonic()
        for epoch in range(done, recipe.epochs):
            set_rate(optimizer, recipe, epoch)
            first = epoch * recipe.steps_an_epoch(n)
            for step, (raw, x, target) in enumerate(
                islice(labelled_batches(epoch), recipe.steps_of(epoch, n)), first
            ):
                if recipe.steps is not None:  # the learning rate changes by step
                    set_rate(optimizer, recipe, recipe.epochs * step / recipe.steps)
                if compiled:
                    x = x.contiguous(memory_format=torch.channels_last)
                optimizer.zero_grad(set_to_none=True)
                if model is not net:
                    size = min(recipe.batch_size, n - (step - first) * recipe.batch_size)
                    _part_of_loss(model, loss_of, x, target, size, is_partitioned(recipe.views)).backward()
                elif gradient_rule is None:
                    loss_of(net, x, target).backward()
                else:
                    gradient_rule(net, loss_of, x, target, raw, epoch)
                optimizer.step()
                if on_step is not None:
                    on_step(step + 1)
            if on_epoch is not None:
                on_epoch(epoch + 1)
                net.train()
            if checkpoint is not None:
                save(checkpoint, epoch + 1, before + time.monotonic() - began, state)
    return net


def _distributed(
    net: Network, gradient_rule: GradientRule | None, custom_batches: bool, device: torch.device
) -> nn.Module:
    """Return the module that each of several processes calls instead of `net`."""
    if gradient_rule is not None or custom_batches:
        raise ValueError(
            "several processes support only the gradient of the loss and the recipe's own batches; a gradient_rule, or "
            "labelled_batches of teachers, need one process. Use dd-bench instead of torchrun"
        )
    return distributed.data_parallel(net, device)


def _part_of_loss(
    net: nn.Module, loss_of: Loss, x: Tensor, target: Target, size: int, partitioned: bool
) -> Tensor:
    """Return the loss of this process's part of a batch of `size`, weighted so that the mean is the batch's loss."""
    mine = len(range(distributed.rank(), size, distributed.world_size()))
    if mine and not partitioned:  # without a part it runs the whole batch, or the other processes would wait
        x, target = distributed.local_part((x, target), size)
    return distributed.loss_weight(mine, size) * loss_of(net, x, target)
