"""How many nodes of each class a distilled set has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dd_bench.api import DistillContext, RealSet


def quota(counts: Tensor, ipc: int, nodes: int | None) -> list[int]:
    """Return the number of nodes of each class.

    With `nodes=None`, every class has `ipc` nodes. Otherwise, the set has `nodes` nodes in proportion to the training
    nodes `counts (k,)`, rounded down but at least one; the largest class gets the rest (GCond). If nothing is left for
    it, it has one node, and the classes with the most nodes have fewer. `nodes` must be at least k.
    """
    if nodes is None:
        return [ipc] * len(counts)
    total = int(counts.sum())
    sizes = [max(1, int(n) * nodes // total) for n in counts]
    largest = int(counts.argsort(stable=True)[-1])
    sizes[largest] = max(1, nodes - sum(sizes) + sizes[largest])
    while sum(sizes) > nodes:
        sizes[sizes.index(max(sizes))] -= 1
    return sizes


def check_quota(real: RealSet, ipc: int, nodes: int | None) -> str | None:
    """Return why a set cannot have this many nodes per class, or None.

    A class has at most `ipc` nodes, and at most as many as it has training nodes.
    """
    counts, k = real.train.counts, real.num_classes
    if nodes is None:
        c = int(counts.argmin())
        if ipc > (available := int(counts[c])):
            return (
                f"the set must have at most {available} nodes of class {real.class_names[c]!r}, its number of training "
                f"nodes, got {ipc}. Use ipc={available}"
            )
        return None
    if nodes < k:
        return (
            f"method.nodes must be >= {k} for one node per class, got {nodes}. "
            f"Use {_fitting(counts, ipc, 5 * k)}"
        )
    sizes = torch.tensor(quota(counts, ipc, nodes))
    limits = counts.cpu().clamp_max(ipc)
    if not bool((sizes > limits).any()):
        return None
    c = int((sizes - limits).argmax())
    few = int(counts[c]) < ipc
    limit = f"it has {int(limits[c])} training nodes" if few else f"ipc={ipc} allows {ipc}"
    more = "" if few or bool((sizes > counts.cpu()).any()) else f", or ipc={int(sizes.max())}"
    return (
        f"method.nodes={nodes} gives {int(sizes[c])} nodes of class {real.class_names[c]!r}, but {limit}. "
        f"Use {_fitting(counts, ipc, nodes)}{more}"
    )


def _fitting(counts: Tensor, ipc: int, most: int) -> str:
    """Return the argument of a set of at most `most` nodes that `check_quota` accepts, as large as possible."""
    limits = counts.cpu().clamp_max(ipc)
    for nodes in range(min(most, int(limits.sum())), len(counts) - 1, -1):
        if bool((torch.tensor(quota(counts, ipc, nodes)) <= limits).all()):
            return f"method.nodes={nodes}"
    return f"method.nodes=null ipc={min(ipc, int(counts.min()))}"


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
