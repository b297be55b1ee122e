"""Computation trees without trees: two nodes have the same one to depth L iff L rounds of colouring agree on them.

A round gives a node the colour of its own label and of the multiset of (edge label, colour) of its neighbours. The
own *label*, not the colour of the round before: that is what the tree's root shows. By induction over the rounds the
colours are the isomorphism classes of the unfolded trees (1-WL).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dd_bench.api import Graphs

_GOLDEN, _FIRST, _SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685  # of splitmix64


def colours(graphs: Graphs, depth: int, edge_labels: bool = True, seed: int = 0) -> Tensor:
    """Returns the colour of each node after `depth` rounds, `(v,)`: dense numbers, equal for equal trees.

    Multisets are hashed to 64 bits as the sum of their members' words, so that a repeated child counts: never as a
    set. K distinct trees collide with odds of K^2 / 2^65; another `seed` hashes anew.
    """
    own = dense(packed(graphs.nodes))
    label = dense(packed(graphs.edge_labels)) if edge_labels else torch.zeros_like(graphs.edges[0])
    values = int(label.max()) + 1 if label.numel() else 1
    mark, colour = _word(own, 2 * seed + 1), own
    for _ in range(depth):
        kinds = torch.arange((int(colour.max()) + 1) * values, device=colour.device)  # fewer than edges
        kind = colour.index_select(0, graphs.edges[0]).mul_(values).add_(label)
        children = _word(kinds, 2 * seed).index_select(0, kind)
        total = torch.zeros_like(mark).index_add_(0, graphs.edges[1], children)
        colour = dense(_word(total + mark, 2 * seed))
    return colour


def packed(labels: Tensor) -> Tensor:
    """Returns one number for each row of labels `(v, f)`, equal for equal rows."""
    number, values = labels.new_zeros(len(labels)), 1
    for column in labels.t().contiguous():
        size = int(column.max()) + 1 if column.numel() else 1
        if values * size >= 2**62:
            number = dense(number)
            values = int(number.max()) + 1
        number, values = number * size + column, values * size
    return number


def dense(values: Tensor) -> Tensor:
    """Returns equal numbers from 0 on for equal values, in the order of the values."""
    if not values.numel():
        return values
    low, high = (int(v) for v in values.aminmax())
    if low >= 0 and high < 2 * len(values):  # few enough to count
        there = torch.bincount(values) > 0
        return (there.cumsum(0) - 1).index_select(0, values)  # much faster than by brackets
    if values.device.type != "cpu":
        numbers: Tensor = values.unique(return_inverse=True)[1]
        return numbers
    keys = values.numpy()  # whose sort is vectorised, check_store torch's
    order = keys.argsort()
    sorted_keys = keys[order]
    out = np.empty_like(keys)
    out[order] = np.concatenate([[0], (sorted_keys[1:] != sorted_keys[:-1]).cumsum()])
    return torch.from_numpy(out)


def _word(number: Tensor, seed: int) -> Tensor:
    """Returns a random 64-bit word for each number: splitmix64, in integers that wrap."""
    x = number + (seed + 1) * _GOLDEN % 2**63
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """Returns the bits shifted right, with zeros behind them."""
    return (x >> by) & ((1 << (64 - by)) - 1)
