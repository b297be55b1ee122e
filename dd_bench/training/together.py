"""Training of several networks of one architecture in lock step, as one batched network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from dd_bench.models.network import Network
from dd_bench.runtime.checkpoint import State
from dd_bench.runtime.fixed_memory import send
from dd_bench.runtime.runtime import Runtime
from dd_bench.runtime.seeding import Generators, seed_for, seeded
from dd_bench.training.batches import Batches, Fetch, recipe_batches, single_image_errors
from dd_bench.training.graphed_step import GraphedStep, Record, cuda_graph
from dd_bench.training.losses import target_loss
from dd_bench.training.optimisation import (
    learning_rate,
    make_optimizer,
    reset_at_milestone,
    set_batchnorm_momentum,
    step_with,
)
from dd_bench.training.recipe import Recipe
from dd_bench.training.resume import Checkpoints, ResumableTraining
from dd_bench.training.stacked_networks import StackedNetworks, unstack


@dataclass(frozen=True)
class StepInputs:
    """Everything that differs between two steps: the random numbers of the batch, and the learning rate, 0-d."""

    draw: Any
    lr: Tensor


class LockStepError(RuntimeError):
    """The networks cannot be trained in lock step, e.g. because `vmap` does not support one of their operations."""


def train_together(
    nets: list[Network],
    fetch: Fetch,
    n: int,
    recipe: Recipe,
    *,
    seeds: list[int],
    runtime: Runtime,
    flip: bool,
    checkpoint: Checkpoints | None = None,
    labelled_batches: Batches | None = None,
    on_epoch: Callable[[int, StackedNetworks], None] | None = None,
    state: State | None = None,
    mean_loss: Tensor | None = None,
    record: Record | None = None,
) -> list[Network]:
    """Train r networks of one architecture in place as one batched network, and return them.

    Each network has its own batch order and augmentation, drawn from its seed as in `train`. The results are those of
    `train` up to rounding, for any r, except that dropout masks are drawn for all networks at once.

    Args:
        nets: networks on `runtime.device`.
        fetch: maps the indices of the batches of all networks, `(r * b,)`, to inputs and labels.
        n: number of training images.
        recipe: optimiser, schedule, epochs, augmentation.
        seeds: the seed of each network.
        runtime: device and precision, and whether to run a step as one CUDA graph.
        flip: whether a horizontal flip preserves the class.
        checkpoint: files of the state of the training. If they exist, training resumes from them.
        labelled_batches: inputs and targets, instead of those from `fetch` and the recipe.
        on_epoch: called after each epoch with the number of finished epochs and the networks, in train mode.
        state: further values that `on_epoch` changes, to save with the state of the training.
        mean_loss: 0-d tensor on the device that each step sets to the mean loss of the networks.
        record: how a step is recorded; by default as a CUDA graph, if `runtime.graphs` allows it.

    Raises:
        LockStepError: the first step raised an error. The networks have not changed.
    """
    device, recipe, r = runtime.device, recipe.with_epochs(n), len(nets)
    record = record or (cuda_graph if runtime.graphs.allowed else None)
    batches = labelled_batches or recipe_batches(
        fetch, n, recipe, seeds, flip, device, fixed=record is not None
    )
    networks = StackedNetworks(nets, runtime.autocast, by_dimension=recipe.decay_filter == "weights_only")
    optimizer = make_optimizer(networks.vectors, recipe, device, networks.is_weight)
    set_batchnorm_momentum(networks.module.train(), recipe)

    number = torch.full((), float(r), device=device)

    def step(inputs: StepInputs) -> None:
        _, x, target = batches.make(inputs.draw)
        logits = networks(x.unflatten(0, (r, -1)))
        loss = target_loss(logits.flatten(0, 1), target)  # the mean of the losses of the networks
        gradients = torch.autograd.grad(loss, networks.vectors, number)  # of their sum
        for vector, gradient in zip(networks.vectors, gradients, strict=True):
            vector.grad = gradient
        step_with(optimizer, inputs.lr)
        if mean_loss is not None:
            mean_loss.copy_(loss.detach())

    graphed = GraphedStep(step, device, runtime.graphs, record) if record else None
    run = _checked(graphed or (lambda inputs: step(send(inputs, device))))
    with seeded(device, seed_for(seeds[0], "dropout")):
        parameters = {f"parameters {i}": vector for i, vector in enumerate(networks.vectors)}
        whole = {**parameters, **networks.buffers, "optimizer": optimizer, **batches.state, **(state or {})}
        streams = Generators(batches.streams, device)
        resumable = ResumableTraining(checkpoint, whole, streams, recipe.steps_per_epoch(n))
        with resumable.deferred(), single_image_errors(n, recipe):
            for epoch in range(resumable.epoch, recipe.epochs):
                first = epoch * recipe.steps_per_epoch(n)
                draws = islice(batches.draw(epoch), recipe.steps_left(epoch, n))
                for index, draw in resumable.steps(draws):
                    # with `steps`, the learning rate changes at every step
                    time = epoch if recipe.steps is None else recipe.epochs * (first + index) / recipe.steps
                    if index == 0 or recipe.steps is not None:
                        reset_at_milestone(optimizer, recipe, time)
                    run(StepInputs(draw, _scalar(learning_rate(recipe, time), device)))
                if on_epoch is not None:
                    on_epoch(epoch + 1, networks)
                resumable.end_epoch(last=epoch + 1 == recipe.epochs)
    unstack(networks.state(), nets)
    return nets


def _checked(run: Callable[[StepInputs], None]) -> Callable[[StepInputs], None]:
    """Return `run`, which raises LockStepError instead of other errors until one step has succeeded."""
    succeeded = False

    def checked(inputs: StepInputs) -> None:
        nonlocal succeeded
        try:
            run(inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if succeeded:
                raise
            raise LockStepError(str(error)) from error
        succeeded = True

    return checked


def _scalar(value: float, device: torch.device) -> Tensor:
    """Return a number as a CPU tensor, in the type in which the fused optimisers of `device` read it."""
    return torch.tensor(value, dtype=torch.float64 if device.type == "cpu" else torch.float32)
