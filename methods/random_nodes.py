"""Random training nodes, the baseline at an equal number of nodes or of stored bytes."""

from __future__ import annotations

from bisect import bisect_right

import torch
from torch import Tensor

from dd_bench.api import Architecture, DistillContext, Method, NodeSet, RealSet, training_nodes

from ._arguments import check_at_least, check_choice
from ._nodes.quota import check_quota, quota
from ._nodes.tree import smoothed_features, tree_columns


class RandomNodes(Method):
    """Draw training nodes of each class without replacement.

    With `bytes`, nodes are drawn from the classes in turn, up to `ipc` of each class, as long as the stored set has at
    most this many bytes. With `features=tree`, the set stores the same columns of the features as a set of Bonsai.
    """

    modalities = ("node",)
    citation = "uniform random selection"

    def __init__(self, *, nodes: int | None, bytes: int | None, hops: int, edges: bool, features: str):
        """See `conf/method/random_nodes.yaml` for the arguments.

        Raises:
            ValueError: `nodes` and `bytes` are both given, or a value is out of range.
        """
        if nodes is not None and bytes is not None:
            raise ValueError(
                f"only one of method.nodes and method.bytes can be set, got {nodes} and {bytes}. "
                "Use method.nodes=null"
            )
        check_choice("features", features, ("all", "tree"))
        if hops and features == "tree":
            raise ValueError(
                "method.features=tree selects columns of the original features, got method.hops="
                f"{hops}. Use method.hops=0"
            )
        check_at_least(0, hops=hops)
        check_at_least(1, bytes=bytes)
        self.nodes, self.bytes, self.hops, self.edges, self.features = nodes, bytes, hops, edges, features

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture):
            return reason
        if self.bytes is None:
            return check_quota(real, ipc, self.nodes)
        one_each = torch.cat([real.train.of_class(c)[:1] for c in range(real.num_classes)])
        if (minimum := self._size(real, one_each, self._columns(real))) > self.bytes:
            return (
                f"method.bytes must be >= {minimum} for one node per class, got {self.bytes}. "
                f"Example: method.bytes={2 * minimum}"
            )
        return None

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> NodeSet:
        """See `Method`."""
        drawn, columns = [], self._columns(real)
        for c in range(real.num_classes):
            members = real.train.of_class(c)
            order = torch.randperm(len(members), generator=ctx.generator("nodes", c), device=members.device)
            drawn.append(members[order])
        if self.bytes is None:
            sizes = quota(real.train.counts, ipc, self.nodes)
            chosen = torch.cat([m[:size] for m, size in zip(drawn, sizes, strict=True)])
            return self._set(real, chosen, columns)
        turns = torch.cat([torch.stack([torch.arange(len(m[:ipc])), m[:ipc].cpu()]) for m in drawn], 1)
        order = turns[1][turns[0].argsort(stable=True)].to(ctx.device)  # class after class, in turns
        larger = range(real.num_classes + 1, len(order) + 1)  # the size grows with each node
        more = bisect_right(larger, self.bytes, key=lambda n: self._size(real, order[:n], columns))
        return self._set(real, order[: real.num_classes + more].sort().values, columns)

    def _columns(self, real: RealSet) -> Tensor | None:
        """Return the columns of the features that the set stores, or None for all."""
        if self.features == "all":
            return None
        train = training_nodes(real).to(torch.device("cpu"))
        return tree_columns(smoothed_features(train.graph)[train.index], train.labels)

    def _set(self, real: RealSet, index: Tensor, columns: Tensor | None) -> NodeSet:
        return NodeSet.coreset(real, index, hops=self.hops, edges=self.edges, columns=columns)

    def _size(self, real: RealSet, index: Tensor, columns: Tensor | None) -> int:
        return sum(self._set(real, index, columns).stored_bytes().values())
