"""Real samples as a synthetic set: what every coreset is, of images or of graphs."""

from __future__ import annotations

from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.synthetic.base import SyntheticSet
from dd_bench.synthetic.graphs import GraphSet
from dd_bench.synthetic.images import ImageSet


def selected(real: RealSet, index: Tensor, whole: bool = False) -> SyntheticSet:
    """Return the set of the training samples `index (n,)`, as they are; `whole` says that these are all."""
    kind = GraphSet if real.modality == "graph" else ImageSet
    return kind.coreset(real, index, whole)
