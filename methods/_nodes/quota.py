"""How many nodes of each class a distilled set has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dd_bench.api import DistillContext, RealSet


def quota(counts: Tensor, ipc: int, nodes: int | None) -> list[int]:
    """Return the number of nodes of each class.

    With `nodes=None`, every class has `ipc` nodes. Otherwise, the set has `nodes` nodes in proportion to the training
    nodes `counts (k,)`, rounded down but at least one; the largest class gets the rest (GCond).
    """
    if nodes is None:
        return [ipc] * len(counts)
    total = int(counts.sum())
    sizes = [max(1, int(n) * nodes // total) for n in counts]
    largest = int(counts.argsort(stable=True)[-1])
    sizes[largest] = max(1, nodes - sum(sizes) + sizes[largest])
    return sizes


def check_quota(real: RealSet, ipc: int, nodes: int | None, *, limited: bool = True) -> str | None:
    """Return why a set cannot have this many nodes per class, or None.

    `limited` is whether a class can have at most as many nodes as it has training nodes.
    """
    if nodes is not None and nodes < real.num_classes:
        return (
            f"method.nodes must be >= {real.num_classes} for one node per class, got {nodes}. "
            f"Example: method.nodes={5 * real.num_classes}"
        )
    sizes = quota(real.train.counts, ipc, nodes)
    if nodes is not None and max(sizes) > ipc:
        return (
            f"method.nodes={nodes} gives {max(sizes)} nodes of class {real.class_names[sizes.index(max(sizes))]!r}, "
            f"but ipc={ipc} allows {ipc}. Use ipc={max(sizes)}"
        )
    for c, size in enumerate(sizes):
        if limited and size > int(real.train.counts[c]):
            return (
                f"the set must have at most {int(real.train.counts[c])} nodes of class {real.class_names[c]!r}, its "
                f"number of training nodes, got {size}. Use ipc={int(real.train.counts.min())}"
            )
    return None


def quota_labels(sizes: Sequence[int], device: torch.device) -> Tensor:
    """Return the labels of a set sorted by class, `(n,)`."""
    classes = torch.arange(len(sizes), device=device)
    return classes.repeat_interleave(torch.tensor(sizes, device=device))


def initial_nodes(real: RealSet, sizes: Sequence[int], ctx: DistillContext) -> Tensor:
    """Return the positions in the training split of `sizes[c]` random nodes of each class c, `(n,)`."""
    drawn = []
    for c, size in enumerate(sizes):
        members, generator = real.train.of_class(c), ctx.generator("init", c)
        drawn.append(members[torch.randperm(len(members), generator=generator, device=members.device)[:size]])
    return torch.cat(drawn)
