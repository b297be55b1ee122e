"""Heavy-edge matching: contract a graph level by level, along the edges that carry most of the weight of their ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass
class CoarseGraph:
    """A graph whose nodes are sets of nodes of another graph.

    Attributes:
        assignment: node of this graph for each original node, `(v,)`; the matrix P has a one in row i and column
            `assignment[i]`.
        weights: P^T A P, sparse CSR `(m, m)`. Its diagonal is twice the weight of the edges within a node.
        votes: number of original training nodes of each class, `(m, k)`.
    """

    assignment: Ints
    weights: scipy.sparse.csr_matrix
    votes: Ints

    @property
    def labels(self) -> Ints:
        """The class of most training nodes of each node, the first of equal ones; -1 without training nodes, `(m,)`."""
        return np.where(self.votes.sum(1) > 0, self.votes.argmax(1), -1)

    def contracted(self, mate: Ints) -> CoarseGraph:
        """Return the graph after the contraction of each node i with the node `mate[i]`, which may be i itself."""
        _, number = np.unique(np.minimum(np.arange(len(mate)), mate), return_inverse=True)
        p = indicator(number)
        return CoarseGraph(
            number[self.assignment], (p.T @ self.weights @ p).tocsr(), np.asarray(p.T @ self.votes)
        )


def indicator(assignment: Ints) -> scipy.sparse.csr_matrix:
    """Return P, sparse `(v, m)`, int64, with a one in row i and column `assignment[i]`."""
    v = len(assignment)
    shape = (v, int(assignment.max()) + 1)
    return scipy.sparse.csr_matrix((np.ones(v, dtype=np.int64), (np.arange(v), assignment)), shape=shape)


def heavy_edges(weights: scipy.sparse.csr_matrix) -> Ints:
    """Return the edges `(e, 2)`, those with the largest share in the weights of their ends first, then by number.

    The share of edge ij is w_ij / d_i + w_ij / d_j, where d are the sums of the rows, with their diagonal.
    """
    upper = scipy.sparse.triu(weights, 1).tocoo()
    i, j = upper.row.astype(np.int64), upper.col.astype(np.int64)
    d = np.asarray(weights.sum(1)).ravel()
    share = upper.data / d[i] + upper.data / d[j]
    order = np.lexsort((j, i, -share.round(12)))  # rounded, so that equal shares are equal
    return np.stack([i[order], j[order]], 1)


def match(graph: CoarseGraph, target: int) -> Ints:
    """Return the node that each node is contracted with, itself if with none, `(m,)`.

    Each node is contracted at most once, along the heaviest edges first, until `target` nodes have a label. An edge is
    skipped if a class would be left without a node.
    """
    mate = np.arange(len(graph.votes))
    labels = graph.labels
    of_class = np.bincount(labels[labels >= 0], minlength=graph.votes.shape[1])
    labelled = int(of_class.sum())
    for i, j in heavy_edges(graph.weights).tolist():
        if labelled <= target:
            break
        if mate[i] != i or mate[j] != j:
            continue
        if labels[i] >= 0 and labels[j] >= 0:
            after = of_class.copy()
            after[labels[i]] -= 1
            after[labels[j]] -= 1
            after[(graph.votes[i] + graph.votes[j]).argmax()] += 1
            if (after[[labels[i], labels[j]]] == 0).any():
                continue
            of_class, labelled = after, labelled - 1
        mate[i], mate[j] = j, i
    return mate


def coarsen(adjacency: scipy.sparse.csr_matrix, votes: Ints, target: int) -> CoarseGraph:
    """Contract a graph until at most `target` nodes have a label, or no edge can be contracted any more.

    Time and memory of a level are linear in nodes and edges, and in the product of nodes and classes.

    Args:
        adjacency: symmetric weights `(v, v)` without a diagonal.
        votes: one for the class of each training node, `(v, k)`.
        target: number of nodes.
    """
    graph = CoarseGraph(np.arange(len(votes)), adjacency, votes)
    while int((graph.labels >= 0).sum()) > target:
        mate = match(graph, target)
        if (mate == np.arange(len(mate))).all():
            break
        graph = graph.contracted(mate)
    return graph
