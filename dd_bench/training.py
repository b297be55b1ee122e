"""The one train-from-scratch loop: evaluators train fresh networks with it, methods their teachers and experts.

The data lie on the device, a batch is an index, and no step waits for the device. `train` runs one network;
`train_together` runs several as one batched network (`torch.func.vmap`), the fast way on a GPU. Both draw the
same batches and augmentations for a network's seed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from dd_bench import checkpoint, parallel
from dd_bench.augment import Augment, cutmix
from dd_bench.graphs import GraphShape
from dd_bench.inputs import Inputs
from dd_bench.labels import Taught, Weighted, classification_loss, mixed_loss, taught_loss, weighted_loss
from dd_bench.models.network import Network
from dd_bench.protocol import Recipe
from dd_bench.real import Split
from dd_bench.runtime import Runtime
from dd_bench.seeding import Generators, Stream, seed_for, seeded, stream
from dd_bench.views import ViewRecipe, Views

Fetch = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps indices `(b,)` on the device to network inputs `(b, c, h, w)` and labels."""
Target = Any
"""Labels, `(labels, partner, keep)` of a mixed batch, `Taught` or `Weighted`."""
Loss = Callable[[nn.Module, Tensor, Target], Tensor]
"""`(net, inputs, target) -> ` 0-d."""
Lessons = Callable[[int], Iterator[tuple[Tensor, Tensor, Target]]]
"""Maps an epoch to its batches: images before they are augmented, network inputs, and their target."""


class Descent(Protocol):
    """Another descent direction than the gradient of the loss."""

    def __call__(
        self, net: nn.Module, loss: Loss, x: Tensor, target: Target, raw: Tensor, epoch: int
    ) -> None:
        """Fills `.grad` of the parameters of `net`; `x` is the augmented batch, `raw` the batch before that."""


def fetch_from(images: Inputs, labels: Tensor) -> Fetch:
    """Returns the `Fetch` of images `(n, c, h, w)` and labels that lie on the device."""
    return lambda index: (images[index], labels[index])


def fetch_split(split: Split) -> Fetch:
    """Returns the `Fetch` of a split of real images."""
    return lambda index: (split.inputs(index), split.labels[index])


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
    descent: Descent | None = None,
    kept: Path | None = None,
    lessons: Lessons | None = None,
) -> Network:
    """Trains `net` in place on `n` images and returns it, in train mode.

    Args:
        net: on `runtime.device`.
        fetch: where batches come from.
        n: number of training images.
        recipe: optimiser, schedule, epochs, augmentation.
        seed: of batch order, augmentation, mixing and dropout.
        runtime: device and precision.
        flip: whether a horizontal flip keeps the class.
        compiled: use `torch.compile`, see `repays_compilation`.
        on_epoch: called with the number of epochs done after each of them.
        on_step: called with the number of steps done after each of them.
        descent: instead of the gradient of the loss.
        kept: file of a checkpoint, written after every epoch and gone on from if it is there; the result is the
            same. It stays when the training is done.
        lessons: what is shown and what is to be answered, instead of `fetch` under the recipe.

    Several processes that `torchrun` has started train it together, see `parallel`.

    Raises:
        Unusable: the checkpoint is damaged, or of another network or optimiser.
        ValueError: several processes cannot train this together.
    """
    device, recipe = runtime.device, recipe.lasting(n)
    streams = [stream(device, seed, role) for role in ("order", "augment", "cutmix")]
    lessons_of_others = lessons is not None
    lessons = lessons or _lessons(fetch, n, recipe, streams, seed, flip)
    optimizer = make_optimizer(net.parameters(), recipe, device)
    loss_of = partial(_compiled_loss() if compiled else _loss, autocast=runtime.autocast)
    if compiled:
        net = net.to(memory_format=torch.channels_last)
    net.train()
    called = _by_several(net, descent, lessons_of_others, device) if parallel.world() > 1 else net
    with seeded(device, seed_for(seed, "dropout")):
        state: checkpoint.State = {"net": net, "optimizer": optimizer, "streams": Generators(streams, device)}
        done, before = checkpoint.restore(kept, state) if kept is not None else (0, 0.0)
        began = time.monotonic()
        for epoch in range(done, recipe.epochs):
            set_rate(optimizer, recipe, epoch)
            first = epoch * recipe.steps_an_epoch(n)
            for step, (raw, x, target) in enumerate(islice(lessons(epoch), recipe.steps_of(epoch, n)), first):
                if recipe.steps is not None:  # the rate falls by step too, whatever the size of the set
                    set_rate(optimizer, recipe, recipe.epochs * step / recipe.steps)
                if compiled:
                    x = x.contiguous(memory_format=torch.channels_last)
                optimizer.zero_grad(set_to_none=True)
                if called is not net:
                    size = min(recipe.batch_size, n - (step - first) * recipe.batch_size)
                    _part_of_loss(called, loss_of, x, target, size, _parted(recipe.views)).backward()
                elif descent is None:
                    loss_of(net, x, target).backward()
                else:
                    descent(net, loss_of, x, target, raw, epoch)
                optimizer.step()
                if on_step is not None:
                    on_step(step + 1)
            if on_epoch is not None:
                on_epoch(epoch + 1)
                net.train()
            if kept is not None:
                checkpoint.save(kept, epoch + 1, before + time.monotonic() - began, state)
    return net


def _by_several(net: Network, descent: Descent | None, taught: bool, device: torch.device) -> nn.Module:
    """Returns the network as several processes call it."""
    if descent is not None or taught:
        raise ValueError(
            "several processes train by the gradient and on the recipe's own batches alone; another descent, or "
            "lessons of teachers, take one process. Use dd-bench instead of torchrun"
        )
    return parallel.spread_over_batch(net, device)


def _parted(views: ViewRecipe | None) -> bool:
    """Whether lessons of these views are a process's part of a batch already."""
    return views is not None and views.mix == "none"


def _part_of_loss(
    net: nn.Module, loss_of: Loss, x: Tensor, target: Target, size: int, parted: bool
) -> Tensor:
    """Returns the loss of this process's part of a batch of `size`, weighed so that the average is the batch's."""
    mine = len(range(parallel.rank(), size, parallel.world()))
    if mine and not parted:  # with none, all go through the network, or the other processes would wait
        x, target = parallel.part_of((x, target), size)
    return parallel.weight_of(mine, size) * loss_of(net, x, target)


def _lessons(fetch: Fetch, n: int, recipe: Recipe, streams: list[Stream], seed: int, flip: bool) -> Lessons:
    """Returns the lessons of the recipe: augmented batches in a shuffled order, with their own labels."""
    order, draws, mixing = streams
    device = order.device.device
    if recipe.views is not None:
        views = Views(recipe.views, n, seed=seed, batch_size=recipe.batch_size, flip_allowed=flip)
        return partial(_viewed, fetch, views, device)
    augment = Augment(
        recipe.augment, flip_allowed=flip, dialect=recipe.dialect, align_corners=recipe.align_corners
    )

    def lessons(epoch: int) -> Iterator[tuple[Tensor, Tensor, Target]]:
        for index in batches(n, recipe.batch_size, order, device):
            raw, y = fetch(index)
            x, target = _maybe_mix(augment.batch(raw, draws), y, recipe, mixing)
            yield raw, x, target

    return lessons


def _viewed(
    fetch: Fetch, views: Views, device: torch.device, epoch: int
) -> Iterator[tuple[Tensor, Tensor, Target]]:
    # of several processes each decodes its own part of a batch, unless images are mixed with others of it
    part = (parallel.rank(), parallel.world()) if _parted(views.recipe) else (0, 1)
    for index, show in views.batches(epoch, device, part):
        raw, y = fetch(index)
        view = show(raw)
        yield raw, view.x, view.told(y)


def train_together(
    nets: list[Network],
    fetch: Fetch,
    n: int,
    recipe: Recipe,
    *,
    seeds: list[int],
    runtime: Runtime,
    flip: bool,
) -> list[Network]:
    """Trains r networks of one architecture in lock step as one batched network, and returns them.

    Each has its own batch order and augmentation, drawn from its seed as `train` draws them; dropout masks differ
    from those of `train`.
    """
    device, recipe = runtime.device, recipe.lasting(n)
    augment = Augment(
        recipe.augment, flip_allowed=flip, dialect=recipe.dialect, align_corners=recipe.align_corners
    )
    streams = [[stream(device, s, role) for role in ("order", "augment", "cutmix")] for s in seeds]
    parameters, buffers = stack_module_state(nets)  # type: ignore[arg-type]  # each (r, ...)
    leaves = {k: v.detach().clone().requires_grad_() for k, v in parameters.items()}
    optimizer = make_optimizer(leaves.values(), recipe, device, stacked=1)
    skeleton = nets[0].train()

    def logits_of(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        out: Tensor = functional_call(skeleton, (parameters, buffers), (x,))
        return out

    together = torch.vmap(logits_of, randomness="different")
    with seeded(device, seed_for(seeds[0], "dropout")):
        for epoch in range(recipe.epochs):
            set_rate(optimizer, recipe, epoch)
            orders = [batches(n, recipe.batch_size, o, device) for o, _, _ in streams]
            first = epoch * recipe.steps_an_epoch(n)
            for step, indices in enumerate(
                islice(zip(*orders, strict=True), recipe.steps_of(epoch, n)), first
            ):
                if recipe.steps is not None:
                    set_rate(optimizer, recipe, recipe.epochs * step / recipe.steps)
                inputs, targets = [], []
                for index, (_, draws, mixing) in zip(indices, streams, strict=True):
                    x, y = fetch(index)
                    x, target = _maybe_mix(augment.batch(x, draws), y, recipe, mixing)
                    inputs.append(x)
                    targets.append(target)
                with torch.autocast(device.type, torch.bfloat16, enabled=runtime.autocast):
                    logits = together(leaves, buffers, torch.stack(inputs))  # (r, b, k)
                loss = sum(_target_loss(out, y) for out, y in zip(logits, targets, strict=True))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[union-attr]
                optimizer.step()
    for i, net in enumerate(nets):
        net.load_state_dict({k: v[i] for k, v in {**leaves, **buffers}.items()}, strict=True)
    return nets


@torch.no_grad()
def accuracy(net: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], runtime: Runtime) -> float:
    """Returns the share of correct predictions in [0, 1], in eval mode, without augmentation."""
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
def right_by_class(
    net: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], k: int, runtime: Runtime
) -> tuple[Tensor, Tensor]:
    """Returns how many images of each class are classified right, and how many there are, `(k,)` each, on the CPU."""
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


def repays_compilation(images: int, shape: tuple[int, int, int] | GraphShape, runtime: Runtime) -> bool:
    """Whether passing `images` images `(c, h, w)` through networks is worth the compiler's warm-up.

    `compile_after` counts images of 28x28; larger ones count for more, by their area.
    """
    if (
        isinstance(shape, GraphShape) or runtime.compile_after is None
    ):  # no two batches of graphs are of one size
        return False
    return images * shape[1] * shape[2] >= runtime.compile_after * 28 * 28


def make_optimizer(
    parameters: Any, recipe: Recipe, device: torch.device, stacked: int = 0
) -> torch.optim.Optimizer:
    """Builds the recipe's optimiser, fused where torch has it; `stacked` dimensions are of networks side by side."""
    parameters = list(parameters)
    if recipe.decay == "matrices":
        flat = [p for p in parameters if p.ndim - stacked < 2]
        parameters = [
            {"params": [p for p in parameters if p.ndim - stacked >= 2]},
            {"params": flat, "weight_decay": 0.0},
        ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, epoch: float) -> None:
    """Sets the learning rate after so many epochs, and forgets momentum at a milestone if the recipe says so."""
    if epoch in recipe.milestones and recipe.reset_optimizer:
        optimizer.state.clear()
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr * _share(recipe, epoch)


def _share(recipe: Recipe, epoch: float) -> float:
    """Returns the share of the learning rate that is left after so many epochs."""
    if epoch < recipe.warmup:
        return 0.01 + 0.99 * epoch / recipe.warmup
    if recipe.schedule == "milestones":
        return recipe.gamma ** sum(epoch >= m for m in recipe.milestones)
    length = (recipe.epochs - recipe.warmup) * (2 if recipe.schedule == "half_cosine" else 1)
    return 0.5 * (1 + math.cos(math.pi * (epoch - recipe.warmup) / length))


def batches(n: int, size: int, order: Stream, device: torch.device) -> Iterator[Tensor]:
    """Yields the indices of one shuffled epoch; a set that fits one batch needs no shuffling."""
    if n <= size:
        yield torch.arange(n, device=device)
    else:
        yield from torch.randperm(n, generator=order.device, device=device).split(size)


def _maybe_mix(x: Tensor, y: Tensor, recipe: Recipe, mixing: Stream) -> tuple[Tensor, Target]:
    """Returns inputs and their target: labels, or what `mixed_loss` takes where CutMix struck."""
    if recipe.cutmix and float(torch.rand((), generator=mixing.host)) < recipe.cutmix:
        x, partner, keep = cutmix(x, mixing.device, recipe.cutmix_beta)
        return x, (y, partner, keep)
    return x, y


def _target_loss(logits: Tensor, y: Target) -> Tensor:
    if isinstance(y, Taught):
        return taught_loss(logits, y)
    if isinstance(y, Weighted):
        return weighted_loss(logits, y)
    return mixed_loss(logits, *y) if isinstance(y, tuple) else classification_loss(logits, y)


def _loss(net: nn.Module, x: Tensor, y: Target, autocast: bool) -> Tensor:
    with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
        logits = net(x)
    return _target_loss(logits, y)


def _compiled_loss() -> Callable[..., Tensor]:
    """The compiled loss; one compilation serves every network of an architecture."""
    global _COMPILED
    if _COMPILED is None:
        # else the ninth architecture or shape of batch of a run would be left to the interpreter
        torch._dynamo.config.recompile_limit = max(1024, torch._dynamo.config.recompile_limit)
        _COMPILED = torch.compile(_loss, dynamic=False)
    return _COMPILED


_COMPILED: Callable[..., Tensor] | None = None
