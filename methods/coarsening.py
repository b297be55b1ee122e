"""Coarsening: contract the graph by heavy-edge matching, without training (after Karypis and Kumar, 1998)."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from dd_bench.api import Architecture, DistillContext, Method, NodeSet, RealSet, training_nodes, undirected

from ._arguments import check_at_least
from ._nodes.matching import CoarseGraph, coarsen


class Coarsening(Method):
    """Contract pairs of neighbours, level by level, and keep the coarse nodes that contain training nodes.

        P = assignment of nodes to coarse nodes by heavy-edge matching, see `coarsen`
        A' = P^T A P without its diagonal, X' = means of the features of the nodes of a coarse node
        y' = the class of most training nodes of a coarse node; coarse nodes without a training node are dropped

    The number of nodes that remain is `nodes`, or `ipc` times the number of classes. Classes cannot be balanced,
    because a coarse node has the class of its nodes. `ipc` is therefore the maximum of a class: of a class with more
    nodes, those with the most training nodes are kept, and the set has fewer nodes than asked. They are also kept if
    more components of the graph have training nodes than the set has nodes. A class never loses its last node. No
    network is trained, and no random number is drawn.

    Deviations from the coarsening of GCond's tables: That is variation neighborhoods (Loukas, 2019; Huang et al., 2021)
    to a number of nodes before nodes without a label are dropped, so its published accuracy is not that of this class.
    """

    modalities = ("node",)
    deterministic = True
    citation = (
        "Karypis and Kumar, A Fast and High Quality Multilevel Scheme for Partitioning Irregular Graphs, SIAM Journal "
        "on Scientific Computing, 1998; Huang et al., Scaling Up Graph Neural Networks Via Graph Coarsening, KDD 2021"
    )

    def __init__(self, *, nodes: int | None):
        """See `conf/method/coarsening.yaml` for the arguments.

        Raises:
            ValueError: `nodes` is less than 1.
        """
        check_at_least(1, nodes=nodes)
        self.nodes = nodes

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture):
            return reason
        k, most = real.num_classes, len(real.train)
        if self.nodes is None or k <= self.nodes <= most:
            return None
        return (
            f"method.nodes must be in {k}..{most}, at least one node per class and at most the number of training "
            f"nodes, got {self.nodes}. Example: method.nodes={min(5 * k, most)}"
        )

    def distill(self, real: RealSet, ipc: int, ctx: DistillContext) -> NodeSet:
        """See `Method`."""
        train = training_nodes(real).to(torch.device("cpu"))
        v, k = train.graph.adjacency.v, real.num_classes
        target = ipc * k if self.nodes is None else self.nodes
        sender, receiver = train.graph.adjacency.edges.numpy()
        ones = np.ones(len(sender), dtype=np.int64)
        adjacency = scipy.sparse.csr_matrix((ones, (sender, receiver)), shape=(v, v))
        votes = np.zeros((v, k), dtype=np.int64)
        votes[train.index.numpy(), train.labels.numpy()] = 1
        graph = coarsen(adjacency, votes, target)
        kept = keep(graph, target, ipc)
        features = mean_features(graph, train.graph.features)[kept]
        labels = torch.from_numpy(graph.labels[kept])
        among = scipy.sparse.triu(graph.weights[kept][:, kept], 1).tocoo()
        pairs = torch.from_numpy(np.stack([among.row, among.col]).astype(np.int64))
        weights = torch.from_numpy(among.data.astype(np.float32))
        return NodeSet.of(real, features, labels, *undirected(pairs, weights))


def keep(graph: CoarseGraph, most: int, ipc: int) -> np.ndarray:
    """Return the nodes that are stored, by class and then by number: at most `most`, and at most `ipc` of each class.

    One node of each class comes first, then nodes with more training nodes.
    """
    labels, size = graph.labels, graph.votes.sum(1)
    order = np.lexsort((np.arange(len(labels)), -size))
    rank = np.zeros(len(labels), dtype=np.int64)  # within the class
    for c in range(graph.votes.shape[1]):
        members = order[labels[order] == c]
        rank[members] = np.arange(len(members))
    order = np.lexsort((np.arange(len(labels)), -size, rank > 0))
    chosen = order[(labels[order] >= 0) & (rank[order] < ipc)][:most]
    return chosen[np.lexsort((chosen, labels[chosen]))]


def mean_features(graph: CoarseGraph, features: Tensor) -> Tensor:
    """Return the rows of P^T X, divided by the numbers of nodes, float32 `(m, d)`."""
    assignment = torch.from_numpy(graph.assignment)
    sizes = torch.bincount(assignment).to(features.dtype)
    sums = features.new_zeros(len(sizes), features.shape[1]).index_add_(0, assignment, features)
    return sums / sizes[:, None]
