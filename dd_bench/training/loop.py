"""The training loop for fresh networks, teachers and experts.

The data is on the device, the random numbers of a step are drawn on the CPU and sent to the device, and no step waits
for the device. `train` trains one network. `train_together` trains several as one batched network (`torch.func.vmap`),
which is faster on a GPU. For the same seed, both draw the same batches and augmentations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor, nn

from dd_bench.models.network import Network
from dd_bench.runtime import distributed
from dd_bench.runtime.checkpoint import State
from dd_bench.runtime.compiler import compiled_layout
from dd_bench.runtime.fixed_memory import send
from dd_bench.runtime.runtime import Runtime
from dd_bench.runtime.seeding import Generators, seed_for, seeded
from dd_bench.training.batches import (
    Batches,
    ComputedBatches,
    Fetch,
    LabelledBatches,
    is_partitioned,
    recipe_batches,
    single_image_errors,
)
from dd_bench.training.losses import Loss, Target, compiled_loss, network_loss
from dd_bench.training.optimisation import make_optimizer, set_batchnorm_momentum, set_lr
from dd_bench.training.recipe import Recipe
from dd_bench.training.resume import Checkpoints, ResumableTraining


class GradientRule(Protocol):
    """A function that computes the gradients of a step, for optimisers that do not use the plain gradient."""

    def __call__(
        self, net: nn.Module, loss: Loss, x: Tensor, target: Target, raw: Tensor, epoch: int
    ) -> None:
        """Set `.grad` of the parameters of `net`; `x` is the augmented batch, `raw` the batch before augmentation."""


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
    on_loss: Callable[[Tensor], None] | None = None,
    gradient_rule: GradientRule | None = None,
    checkpoint: Checkpoints | None = None,
    labelled_batches: LabelledBatches | Batches | None = None,
    state: State | None = None,
) -> Network:
    """Train `net` in place on `n` images and return it, in train mode.

    Several processes started by `torchrun` train the network together, see `dd_bench.runtime.distributed`.

    Args:
        net: a network on `runtime.device`.
        fetch: maps indices to inputs and labels.
        n: number of training images.
        recipe: optimiser, schedule, epochs, augmentation.
        seed: seed of batch order, augmentation, mixing and dropout.
        runtime: device and precision.
        flip: whether a horizontal flip preserves the class.
        compiled: whether to use `torch.compile`, see `uses_compilation`.
        on_epoch: called after each epoch with the number of finished epochs.
        on_step: called after each step with the number of finished steps.
        on_loss: called in each step with its loss, 0-d on the device; not with `gradient_rule` or several processes.
        gradient_rule: computes the gradients; by default, they are the gradient of the loss.
        checkpoint: files of the state of the training. If they exist, training resumes from them and gives the same
            result as without interruption.
        labelled_batches: inputs and targets, instead of those from `fetch` and the recipe.
        state: further values that `on_epoch` and `on_step` change, to save with the state of the training.

    Raises:
        CheckpointError: the checkpoint is damaged, or belongs to another network or optimiser.
        Interrupted: a signal has stopped the run; with `checkpoint`, the state after the last step was saved.
        ValueError: `gradient_rule` or `labelled_batches` is given, and there are several processes.
    """
    device, recipe = runtime.device, recipe.with_epochs(n)
    layout = compiled_layout(device)
    batches: Batches
    if labelled_batches is None:
        batches = recipe_batches(fetch, n, recipe, [seed], flip, device)
    elif isinstance(labelled_batches, Batches):
        batches = labelled_batches
    else:
        batches = ComputedBatches(labelled_batches)
    optimizer = make_optimizer(net.parameters(), recipe, device)
    loss_of = partial(compiled_loss() if compiled else network_loss, autocast=runtime.autocast)
    if compiled:
        net = net.to(memory_format=layout)
    net.train()
    set_batchnorm_momentum(net, recipe)
    custom = gradient_rule is not None or labelled_batches is not None
    model = _distributed(net, custom, device) if distributed.world_size() > 1 else net
    with seeded(device, seed_for(seed, "dropout")):
        whole = {"net": net, "optimizer": optimizer, **batches.state, **(state or {})}
        resumable = ResumableTraining(
            checkpoint, whole, Generators(batches.streams, device), recipe.steps_per_epoch(n)
        )
        with resumable.deferred(), single_image_errors(n, recipe):
            for epoch in range(resumable.epoch, recipe.epochs):
                if recipe.steps is None:
                    set_lr(optimizer, recipe, epoch)
                first = epoch * recipe.steps_per_epoch(n)
                drawn = islice(batches.draw(epoch), recipe.steps_left(epoch, n))
                for index, draw in resumable.steps(drawn):
                    raw, x, target = batches.make(send(draw, device))
                    step = first + index
                    if recipe.steps is not None:  # the learning rate changes by step
                        set_lr(optimizer, recipe, recipe.epochs * step / recipe.steps)
                    if compiled:
                        x = x.contiguous(memory_format=layout)
                    optimizer.zero_grad(set_to_none=True)
                    if model is not net:
                        size = min(recipe.batch_size, n - index * recipe.batch_size)
                        _part_of_loss(
                            model, loss_of, x, target, size, is_partitioned(recipe.views)
                        ).backward()
                    elif gradient_rule is None:
                        loss = loss_of(net, x, target)
                        loss.backward()
                        if on_loss is not None:
                            on_loss(loss.detach())
                    else:
                        gradient_rule(net, loss_of, x, target, raw, epoch)
                    optimizer.step()
                    if on_step is not None:
                        on_step(step + 1)
                if on_epoch is not None:
                    on_epoch(epoch + 1)
                    net.train()
                resumable.end_epoch(last=epoch + 1 == recipe.epochs)
    return net


def _distributed(net: Network, custom: bool, device: torch.device) -> nn.Module:
    """Return the module that each of several processes calls instead of `net`."""
    if custom:
        raise ValueError(
            "gradient_rule and labelled_batches (soft labels of teachers) require a single process. "
            "Use dd-bench instead of torchrun"
        )
    return distributed.data_parallel(net, device)


def _part_of_loss(
    net: nn.Module, loss_of: Loss, x: Tensor, target: Target, size: int, partitioned: bool
) -> Tensor:
    """Return the loss of this process's part of a batch, weighted so that the mean over processes is the batch loss."""
    mine = len(range(distributed.rank(), size, distributed.world_size()))
    # a process without a part runs the whole batch, because the other processes wait for its gradients
    if mine and not partitioned:
        x, target = distributed.local_part((x, target), size)
    return distributed.loss_weight(mine, size) * loss_of(net, x, target)
