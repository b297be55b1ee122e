"""Training of several networks of one architecture as one batched network (`torch.func.vmap`)."""

from __future__ import annotations

from functools import partial
from itertools import islice

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state

from dd_bench.models.network import Network
from dd_bench.runtime.checkpoint import State
from dd_bench.runtime.runtime import Runtime
from dd_bench.runtime.seeding import Generators, Stream, seed_for, seeded, stream
from dd_bench.training.augment import Augment
from dd_bench.training.batches import Fetch, apply_cutmix, batches, recipe_augment, single_image_errors
from dd_bench.training.losses import Target, target_loss
from dd_bench.training.optimisation import make_optimizer, set_batchnorm_momentum, set_lr
from dd_bench.training.per_image_augment import PerImageAugment
from dd_bench.training.recipe import Recipe
from dd_bench.training.resume import Checkpoints, ResumableTraining


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
) -> list[Network]:
    """Train r networks of one architecture in place as one batched network, and return them.

    Each network has its own batch order and augmentation, drawn from its seed as in `train`. Dropout masks differ from
    those of `train`. If `checkpoint` exists, training resumes from it.
    """
    device, recipe = runtime.device, recipe.with_epochs(n)
    augment = recipe_augment(recipe, flip)
    streams = [[stream(device, s, role) for role in ("order", "augment", "cutmix")] for s in seeds]
    parameters, buffers = stack_module_state(nets)  # type: ignore[arg-type]  # each (r, ...)
    leaves = {k: v.detach().clone().requires_grad_() for k, v in parameters.items()}
    optimizer = make_optimizer(leaves.values(), recipe, device, stacked=1)
    skeleton = nets[0].train()
    set_batchnorm_momentum(skeleton, recipe)

    def logits_of(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        out: Tensor = functional_call(skeleton, (parameters, buffers), (x,))
        return out

    batched = torch.vmap(logits_of, randomness="different")
    with seeded(device, seed_for(seeds[0], "dropout")):
        state: State = {**leaves, **buffers, "optimizer": optimizer}
        generators = Generators([part for three in streams for part in three], device)
        resumable = ResumableTraining(checkpoint, state, generators, recipe.steps_per_epoch(n))
        with resumable.deferred(), single_image_errors(n, recipe):
            for epoch in range(resumable.epoch, recipe.epochs):
                set_lr(optimizer, recipe, epoch)
                orders = [batches(n, recipe.batch_size, o, device) for o, _, _ in streams]
                first = epoch * recipe.steps_per_epoch(n)
                draw = partial(_draw, fetch, augment, streams, recipe)
                drawn = map(draw, islice(zip(*orders, strict=True), recipe.steps_left(epoch, n)))
                for index, (inputs, targets) in resumable.batches(drawn):
                    if recipe.steps is not None:
                        set_lr(optimizer, recipe, recipe.epochs * (first + index) / recipe.steps)
                    with torch.autocast(device.type, torch.bfloat16, enabled=runtime.autocast):
                        logits = batched(leaves, buffers, inputs)  # (r, b, k)
                    loss = sum(target_loss(out, y) for out, y in zip(logits, targets, strict=True))
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[union-attr]
                    optimizer.step()
                resumable.end_epoch(last=epoch + 1 == recipe.epochs)
    for i, net in enumerate(nets):
        net.load_state_dict({k: v[i] for k, v in {**leaves, **buffers}.items()}, strict=True)
    return nets


def _draw(
    fetch: Fetch,
    augment: Augment | PerImageAugment,
    streams: list[list[Stream]],
    recipe: Recipe,
    indices: tuple[Tensor, ...],
) -> tuple[Tensor, list[Target]]:
    """Return the augmented inputs `(r, b, c, h, w)` of one step, and the targets of each network."""
    inputs, targets = [], []
    for index, (_, draws, mixing) in zip(indices, streams, strict=True):
        x, y = fetch(index)
        x, target = apply_cutmix(augment.batch(x, draws), y, recipe, mixing)
        inputs.append(x)
        targets.append(target)
    return torch.stack(inputs), targets
