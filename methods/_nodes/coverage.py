"""Greedy maximum coverage of reverse nearest neighbours."""

from __future__ import annotations

import heapq

import numpy as np
import torch
from torch import Tensor


def nearest_neighbours(points: Tensor, neighbours: int, queries: Tensor) -> Tensor:
    """Return the nearest points of each point at `queries (m,)`, itself included, int64 `(m, neighbours)`.

    Distances are Euclidean. scikit-learn computes them in blocks, so memory is linear in the number of points.
    """
    from sklearn.neighbors import NearestNeighbors  # slow to import

    values = points.cpu().numpy()
    search = NearestNeighbors(n_neighbors=min(neighbours, len(values)), algorithm="brute").fit(values)
    found = search.kneighbors(values[queries.cpu().numpy()], return_distance=False)
    return torch.from_numpy(found.astype(np.int64))


def greedy_coverage(covers: Tensor, points: int) -> list[int]:
    """Return all points in the order of greedy maximum coverage.

    Point v covers query i if v is in row i of `covers (m, neighbours)`. Each step takes the point that covers the most
    queries that are not covered yet, the first of equal points. Points without a gain follow in ascending order. Gains
    only decrease, so a gain is computed again only when its point is the first of the heap (lazy greedy, CELF). A
    prefix covers at least 1 - 1/e of what any set of its size can cover.
    """
    queries: list[list[int]] = [[] for _ in range(points)]
    for i, row in enumerate(covers.tolist()):
        for v in row:
            queries[v].append(i)
    heap = [(-len(of_point), v) for v, of_point in enumerate(queries) if of_point]
    heapq.heapify(heap)
    covered = bytearray(len(covers))
    order = []
    while heap:
        gain, v = heap[0]
        current = -sum(not covered[i] for i in queries[v])
        if current == 0:
            heapq.heappop(heap)
        elif current > gain:
            heapq.heapreplace(heap, (current, v))
        else:
            heapq.heappop(heap)
            order.append(v)
            for i in queries[v]:
                covered[i] = 1
    chosen = set(order)
    return [*order, *(v for v in range(points) if v not in chosen)]


def personalised_pagerank(edges: Tensor, v: int, restart: Tensor, damping: float) -> Tensor:
    """Return the PageRank of `v` nodes, float64 `(v,)`, with restarts at the nodes `restart (r,)`.

    A walk continues along an edge with the probability `damping`, and restarts otherwise, or at a node without edges.
    """
    import scipy.sparse

    sender, receiver = (end.numpy() for end in edges)
    degrees = np.bincount(sender, minlength=v)
    moves = scipy.sparse.csr_matrix((1 / degrees[sender], (receiver, sender)), shape=(v, v))
    start = np.zeros(v)
    start[restart.numpy()] = 1 / len(restart)
    rank = start
    for _ in range(1000):
        new = damping * (moves @ rank + rank[degrees == 0].sum() * start) + (1 - damping) * start
        if np.abs(new - rank).sum() < 1e-10:
            break
        rank = new
    return torch.from_numpy(new)
