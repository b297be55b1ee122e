"""The neighbours of training nodes in the adjacency, found on the CPU, so that a step does not wait for the device."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dd_bench.api import RealSet, to_device, training_nodes

CPU = torch.device("cpu")


class Entries(NamedTuple):
    """The entries of some rows of a sparse matrix.

    Attributes:
        nodes: the columns that have an entry, ascending, int64 `(m,)`.
        row: row of each entry, in 0..n-1, int64 `(e,)`.
        column: position of its column in `nodes`, int64 `(e,)`.
        values: float32 `(e,)`.
    """

    nodes: Tensor
    row: Tensor
    column: Tensor
    values: Tensor


class Neighbourhoods:
    """Rows of the normalised adjacency of training nodes.

    The matrix is on the CPU. On a device, the number of neighbours of drawn nodes would be read in every step.

    Attributes:
        members: the training nodes of each class, as numbers of nodes of the graph on the CPU, int64 `(n_c,)`.
    """

    def __init__(self, real: RealSet):
        """Copy the adjacency and the training nodes of a real set to the CPU."""
        train = training_nodes(real)
        self._device = train.labels.device
        self._matrix = train.graph.adjacency.to(CPU).normalised
        self.members = [train.index[train.of_class(c)].cpu() for c in range(real.num_classes)]

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nodes with an entry in the rows `index (n,)`, `(m,)`, and these rows, dense `(n, m)`.

        `index` is on the CPU, and the results are on the device of the real set. Time and memory are linear in the
        entries of the rows, except for the result.
        """
        nodes, row, column, values = (to_device(t, self._device) for t in entries(self._matrix, index))
        rows = torch.zeros(len(index), len(nodes), device=self._device)
        rows[row, column] = values
        return nodes, rows


def entries(matrix: Tensor, index: Tensor) -> Entries:
    """Return the entries of the rows `index (n,)` of a sparse CSR matrix, row after row."""
    starts, stops = matrix.crow_indices()[index], matrix.crow_indices()[index + 1]
    counts = stops - starts
    row = torch.repeat_interleave(torch.arange(len(index), device=index.device), counts)
    entry = torch.arange(len(row), device=index.device) - (counts.cumsum(0) - counts - starts)[row]
    nodes, column = matrix.col_indices()[entry].unique(return_inverse=True)
    return Entries(nodes, row, column, matrix.values()[entry])
