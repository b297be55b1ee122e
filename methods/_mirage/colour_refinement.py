"""Colour refinement: two nodes have the same computation tree of depth L iff they have the same colour after L rounds.

A round computes the colour of a node from its own label and the multiset of (edge label, colour) of its neighbours. It
uses the node's *label*, not its previous colour, because the root of the tree contains only the label. By induction
over the rounds, the colours are the isomorphism classes of the unfolded trees (1-WL).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dd_bench.api import Graphs

_GOLDEN, _FIRST, _SECOND = (
    -7046029254386353131,
    -4658895280553007687,
    -7723592293110705685,
)  # constants of splitmix64


def colours(graphs: Graphs, depth: int, edge_labels: bool = True, seed: int = 0) -> Tensor:
    """Return the colour of each node after `depth` rounds, `(v,)`: an integer from 0. Equal trees have equal colours.

    A multiset is hashed to 64 bits as the sum of the hashes of its members, so that repeated children count. The
    probability of a collision among K distinct trees is about K^2 / 2^65. Another `seed` gives other hashes.
    """
    node_label = dense(packed(graphs.nodes))
    edge_label = dense(packed(graphs.edge_labels)) if edge_labels else torch.zeros_like(graphs.edges[0])
    edge_values = int(edge_label.max()) + 1 if edge_label.numel() else 1
    root_hash, colour = _hash(node_label, 2 * seed + 1), node_label
    for _ in range(depth):
        # Hash each pair (colour, edge label) once; there are fewer pairs than edges.
        pairs = torch.arange((int(colour.max()) + 1) * edge_values, device=colour.device)
        pair_of_edge = colour.index_select(0, graphs.edges[0]).mul_(edge_values).add_(edge_label)
        children = _hash(pairs, 2 * seed).index_select(0, pair_of_edge)
        total = torch.zeros_like(root_hash).index_add_(0, graphs.edges[1], children)
        colour = dense(_hash(total + root_hash, 2 * seed))
    return colour


def packed(labels: Tensor) -> Tensor:
    """Return one integer for each row of labels `(v, f)`. Two rows have the same integer iff they are equal."""
    code, values = labels.new_zeros(len(labels)), 1
    for column in labels.t().contiguous():
        size = int(column.max()) + 1 if column.numel() else 1
        if values * size >= 2**62:
            code = dense(code)
            values = int(code.max()) + 1
        code, values = code * size + column, values * size
    return code


def dense(values: Tensor) -> Tensor:
    """Replace each of the values `(n,)` by its rank among the distinct values, an integer from 0."""
    if not values.numel():
        return values
    low, high = (int(v) for v in values.aminmax())
    if low >= 0 and high < 2 * len(values):  # counting is faster than sorting
        present = torch.bincount(values) > 0
        return (present.cumsum(0) - 1).index_select(0, values)  # index_select is much faster than indexing
    if values.device.type != "cpu":
        inverse: Tensor = values.unique(return_inverse=True)[1]
        return inverse
    keys = values.numpy()  # NumPy's sort is vectorised, torch's is not
    order = keys.argsort()
    sorted_keys = keys[order]
    out = np.empty_like(keys)
    out[order] = np.concatenate([[0], (sorted_keys[1:] != sorted_keys[:-1]).cumsum()])
    return torch.from_numpy(out)


def _hash(x: Tensor, seed: int) -> Tensor:
    """Return a 64-bit hash of each integer: splitmix64, in int64 arithmetic that wraps around."""
    x = x + (seed + 1) * _GOLDEN % 2**63
    x = (x ^ _shift_right(x, 30)) * _FIRST
    x = (x ^ _shift_right(x, 27)) * _SECOND
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Return x shifted right by `bits`, filled with zeros instead of the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
